"""An aggregator in a screen or two: find the devices, give them a bundle, classify a folder of pictures.

    python tools/aggregator.py build/demo/bundle pictures/
    python tools/aggregator.py --state my-fleet build/demo/bundle pictures/

Without `--state` it makes a fleet that it throws away at the end: keys, and a device process on this machine
for each sub-model, joined by a one-use token. With it, have as many devices join the fleet first
(`edvit-tf fleet init`, `edvit-tf fleet adopt`). `edvit-tf fleet deploy` and `edvit-tf infer` do the same and
remember it.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from edvit_tf.bundle.reader import open_bundle
from edvit_tf.bundle.sample import read_sample
from edvit_tf.cli.demo_devices import device_fleet
from edvit_tf.errors import EdvitError
from edvit_tf.fleet import Aggregator, Progress, at_address, deploy, discover, load_keys, signed, with_keys
from edvit_tf.fleet.wire import WireSettings


def on_progress(progress: Progress) -> None:
    """Say when a device serves what it was sent."""
    if progress.step == "serving":
        print(f"{progress.device} serves {progress.submodel} ({progress.total} bytes)", file=sys.stderr)


async def run(
    bundle_folder: Path,
    pictures: list[Path],
    state: Path,
    addresses: list[str],
    seconds: float,
    wire: WireSettings,
) -> None:
    """Sign and deploy the bundle and print a line for each picture."""
    keys = load_keys(state)
    connect = with_keys(keys)
    bundle = signed(open_bundle(bundle_folder), keys, state)
    devices = [at_address(address) for address in addresses]
    if not devices:
        devices = await discover(seconds, expected=len(bundle.manifest.submodels))
    deployment = await deploy(bundle, devices, connect=connect, on_progress=on_progress)

    async with Aggregator(bundle, deployment, connect=connect, wire=wire) as fleet:
        for path in pictures:
            image = read_sample(path, bundle.manifest.input)
            answer = await fleet.classify(image)
            print(
                f"{path.name}\t{answer.label}\t{max(answer.probabilities):.3f}"
                f"\t{answer.answered} of {answer.expected}\t{answer.milliseconds:.1f} ms"
            )


def run_thrown_away(bundle_folder: Path, pictures: list[Path], seconds: float, wire: WireSettings) -> None:
    """Do the same with keys and devices that are gone afterwards."""
    names = [f"device-{submodel.id}" for submodel in open_bundle(bundle_folder).manifest.submodels]
    with tempfile.TemporaryDirectory() as folder, device_fleet(names, Path(folder)) as fleet:
        addresses = [device.address for device in fleet.devices]
        asyncio.run(run(bundle_folder, pictures, fleet.folder, addresses, seconds, wire))


def main() -> int:
    """Parse the arguments, run, and turn an error into one sentence."""
    parser = argparse.ArgumentParser(description="Classify a folder of pictures through a fleet.")
    parser.add_argument("bundle", type=Path, help="the folder that edvit-tf export wrote")
    parser.add_argument("pictures", type=Path, help="a folder of pictures")
    parser.add_argument(
        "--state", type=Path, help="the fleet's folder, with its keys (default: none is kept)"
    )
    parser.add_argument("--address", action="append", default=[], help="a device as host:port")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to look for devices")
    parser.add_argument("--wire", default="auto", help="auto (default), raw, jpeg or webp")
    parser.add_argument("--wire-quality", type=int, help="of --wire jpeg or webp, from 1 to 100")
    given = parser.parse_args()
    pictures = sorted(path for path in given.pictures.glob("*") if path.is_file())
    try:
        wire = WireSettings(given.wire, given.wire_quality)
        if given.state is None:
            run_thrown_away(given.bundle, pictures, given.seconds, wire)
        else:
            asyncio.run(run(given.bundle, pictures, given.state, given.address, given.seconds, wire))
    except EdvitError as error:
        print(f"aggregator: {error.message}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
