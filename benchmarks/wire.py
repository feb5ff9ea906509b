"""Answers over one slow link that ten devices share, in every way of sending pictures, in turns.

    python -m benchmarks.wire [--mbit 20] [--rounds 5] [--bundle FOLDER]

Devices are processes in a network namespace of their own; the aggregator is in another, and `tc tbf` shapes
what is between them. Pictures are photographs from scikit-image. Without `--bundle` one is made first: a
ViT-B of 224 px and patch 32 for ten devices, two heads each, with random weights. It needs root. Prints one
JSON object; times are in milliseconds, from a picture of the model's size to the answer.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks.photographs import photographs
from benchmarks.shaped import FAR, shared_link
from edvit_tf.bundle.reader import open_bundle
from edvit_tf.cli.demo_devices import DeviceProcess, device_fleet
from edvit_tf.errors import DeviceError, EdvitError
from edvit_tf.fleet import Aggregator, Answer, at_address, deploy, load_keys, with_keys
from edvit_tf.fleet.deploy import Deployment
from edvit_tf.fleet.state import load, save
from edvit_tf.fleet.wire import WireSettings

DEADLINE = 20.0
# Heartbeats, then answers: the link is learnt, and what each codec makes of a picture.
QUIET_SECONDS = 3.0
WARM_UP = 4
WAYS = {
    "raw": WireSettings("raw"),
    "auto": WireSettings(),
    "jpeg 85": WireSettings("jpeg", 85),
    "jpeg 95": WireSettings("jpeg", 95),
    "webp, nothing lost": WireSettings("webp"),
}


@dataclass(slots=True)
class Row:
    """What one way of sending came to."""

    milliseconds: list[float] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    codecs: Counter[str] = field(default_factory=Counter)

    def add(self, answer: Answer) -> None:
        """Count an answer, which must be complete."""
        if not answer.complete:
            raise DeviceError(f"{answer.missing} did not answer")
        self.milliseconds.append(answer.milliseconds)
        self.sent.append(sum(part.sent_bytes for part in answer.devices))
        self.codecs.update(part.codec for part in answer.devices)

    def to_json(self) -> dict[str, object]:
        """Its figures."""
        p50, p95 = np.percentile(self.milliseconds, [50, 95])
        return {
            "p50": round(float(p50), 1),
            "p95": round(float(p95), 1),
            "answers": len(self.milliseconds),
            "sent_bytes": round(float(np.mean(self.sent))),
            "codecs": dict(self.codecs),
        }


async def ask(state: Path, rounds: int) -> dict[str, object]:
    """Ask in every way, one after the other, and again."""
    bundle, deployment = load(state)
    connect = with_keys(load_keys(state))
    pictures = list(photographs(bundle.manifest.input).values())
    rows = {name: Row() for name in WAYS}
    async with AsyncExitStack() as exits:
        fleets = {}
        for name, wire in WAYS.items():
            made = Aggregator(bundle, deployment, connect=connect, deadline=DEADLINE, browse=False, wire=wire)
            fleets[name] = await exits.enter_async_context(made)
            if not await made.complete(60.0):
                raise DeviceError(f"the devices are not up: {[row.reason for row in made.status()]}")
        await asyncio.sleep(QUIET_SECONDS)
        for fleet in fleets.values():
            for _ in range(WARM_UP):
                await fleet.classify(pictures[0])
        for _ in range(rounds):
            for name, fleet in fleets.items():
                for picture in pictures:
                    rows[name].add(await fleet.classify(picture))
    raw = float(np.median(rows["raw"].milliseconds))
    ratios = {name: round(float(np.median(row.milliseconds)) / raw, 3) for name, row in rows.items()}
    return {"ways": {name: row.to_json() for name, row in rows.items()}, "of_raw": ratios}


def random_bundle(place: Path) -> Path:
    """Made in a process of its own: TensorFlow would take half a gigabyte beside what is measured."""
    subprocess.run([sys.executable, "-m", "benchmarks.random_bundle", str(place)], check=True)
    return place


def measure(bundle_folder: Path, folder: Path, *, mbit: float, rounds: int) -> dict[str, object]:
    """Deploy on loopback, move the devices behind the link, and ask over it."""
    bundle = open_bundle(bundle_folder)
    names = [f"device-{number}" for number in range(len(bundle.manifest.submodels))]
    with device_fleet(names, folder) as fleet:
        signed = fleet.sign(bundle)
        found = [at_address(device.address) for device in fleet.devices]
        deployment = asyncio.run(deploy(signed, found, connect=fleet.connect))
    with shared_link(mbit) as link, ExitStack() as exits:
        moved = {
            device.id: DeviceProcess(device.name, folder, interface=FAR, under=link.far())
            for device in fleet.devices
        }
        for device in moved.values():
            exits.callback(device.end)
            device.begin()
        for device in moved.values():
            device.wait_ready()
        there = tuple(replace(known, address=moved[known.id].address) for known in deployment.devices)
        save(fleet.folder, signed, Deployment(deployment.assignment, there))
        asking = [sys.executable, "-m", "benchmarks.wire", "--inside", str(fleet.folder)]
        done = subprocess.run(
            link.near(*asking, "--rounds", str(rounds)), stdout=subprocess.PIPE, text=True, check=False
        )
    if done.returncode:
        raise DeviceError("the aggregator behind the link failed: see above")
    said: dict[str, object] = json.loads(done.stdout)
    return {"mbit": mbit, "devices": len(names), "load": round(os.getloadavg()[0], 1), **said}


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mbit", type=float, default=20.0, help="of the link, each way")
    parser.add_argument("--rounds", type=int, default=5, help="each asks every picture in every way")
    parser.add_argument("--bundle", type=Path, help="instead of one that is exported")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    start = time.monotonic()
    try:
        if given.inside is not None:
            print(json.dumps(asyncio.run(ask(given.inside, given.rounds))))
            return 0
        with tempfile.TemporaryDirectory(prefix="edvit-wire-") as name:
            bundle = given.bundle or random_bundle(Path(name) / "bundle")
            said = measure(bundle, Path(name), mbit=given.mbit, rounds=given.rounds)
    except EdvitError as error:
        print(f"wire: {error.message}", file=sys.stderr)
        return error.exit_status
    print(json.dumps({**said, "seconds": round(time.monotonic() - start)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
