"""An aggregator in one screen: find the devices, give them a bundle, classify a folder of pictures.

    edvit-tf fleet init --state my-fleet
    python tools/aggregator.py --state my-fleet build/demo/bundle pictures/

Have as many devices join the fleet as the bundle has sub-models first. This is the public interface of
edvit-tf and nothing else; `edvit-tf fleet deploy` and `edvit-tf infer` do the same and remember it.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from edvit_tf.bundle.reader import open_bundle
from edvit_tf.bundle.sample import read_sample
from edvit_tf.errors import EdvitError
from edvit_tf.fleet import Aggregator, Progress, at_address, deploy, discover, load_keys, signed, with_keys


def on_progress(progress: Progress) -> None:
    """Say when a device serves what it was sent."""
    if progress.step == "serving":
        print(f"{progress.device} serves {progress.submodel} ({progress.total} bytes)", file=sys.stderr)


async def run(
    bundle_folder: Path, pictures: list[Path], state: Path, addresses: list[str], seconds: float
) -> None:
    """Sign and deploy the bundle and print a line for each picture."""
    keys = load_keys(state)
    connect = with_keys(keys)
    bundle = signed(open_bundle(bundle_folder), keys, state)
    devices = [at_address(address) for address in addresses]
    if not devices:
        devices = await discover(seconds, expected=len(bundle.manifest.submodels))
    deployment = await deploy(bundle, devices, on_progress=on_progress, connect=connect)

    async with Aggregator(bundle, deployment, connect=connect) as fleet:
        for path in pictures:
            image = read_sample(path, bundle.manifest.input)
            answer = await fleet.classify(image)
            print(
                f"{path.name}\t{answer.label}\t{max(answer.probabilities):.3f}"
                f"\t{answer.answered} of {answer.expected}\t{answer.milliseconds:.1f} ms"
            )


def main() -> int:
    """Parse the arguments, run, and turn an error into one sentence."""
    parser = argparse.ArgumentParser(description="Classify a folder of pictures through a fleet.")
    parser.add_argument("bundle", type=Path, help="the folder that edvit-tf export wrote")
    parser.add_argument("pictures", type=Path, help="a folder of pictures")
    parser.add_argument("--state", type=Path, required=True, help="the fleet's folder, with its keys")
    parser.add_argument("--address", action="append", default=[], help="a device as host:port")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to look for devices")
    given = parser.parse_args()
    pictures = sorted(path for path in given.pictures.glob("*") if path.is_file())
    try:
        asyncio.run(run(given.bundle, pictures, given.state, given.address, given.seconds))
    except EdvitError as error:
        print(f"aggregator: {error.message}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
