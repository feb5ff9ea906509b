"""A device on a Java virtual machine beside one of Python: `python -m benchmarks.jvm_device [BUNDLE]`.

Both hold the same sub-model of the bundle (by default the tests' own) on this machine and answer the same
pictures in turns. Prints a table: the median and 95th percentile of a picture over mutual TLS, the memory
(PSS) after the first picture and after the last, and the time from the start of a process that has joined
until it is found by zeroconf. `make android` builds the jar.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edvit_tf.bundle.reader import Bundle, open_bundle
from edvit_tf.fleet.discover import Browser
from edvit_tf.fleet.transfer import Parcel, install
from edvit_tf.rpc.channel import GrpcLink
from edvit_tf.rpc.edvit_pb2 import InferRequest, Picture
from tests.fleet import jvm
from tests.fleet.processes import DeviceProcess, device_fleet

ROOT = Path(__file__).parents[1]
TURNS, PICTURES_A_TURN = 100, 100
WARM_UP = 500
STARTS = 5
FOUND_SECONDS = 60.0


@dataclass(slots=True)
class Measured:
    """Of one device: milliseconds of each picture, PSS in bytes, seconds of each start."""

    milliseconds: list[float] = field(default_factory=list)
    first_pss: int = 0
    last_pss: int = 0
    starts: list[float] = field(default_factory=list)


async def found(device: DeviceProcess) -> float:
    """Start a device that has joined; the seconds until it is announced, and ready."""
    there = asyncio.Event()
    async with Browser(lambda one: there.set() if one.id == device.id else None):
        await asyncio.sleep(2)  # whatever was announced before is forgotten
        there.clear()
        start = time.monotonic()
        device.begin()
        async with asyncio.timeout(FOUND_SECONDS):
            await there.wait()
        seconds = time.monotonic() - start
    device.wait_ready()
    return seconds


def question(bundle: Bundle, image: np.ndarray) -> InferRequest:
    """One picture for the bundle's first sub-model."""
    height, width, channels = image.shape
    return InferRequest(
        request_id="benchmark",
        bundle=bundle.manifest.name,
        bundle_version=bundle.manifest.version,
        submodels=[bundle.manifest.submodels[0].id],
        picture=Picture(codec="raw", height=height, width=width, channels=channels, data=image.tobytes()),
    )


async def ask(link: GrpcLink, request: InferRequest, number: int) -> list[float]:
    """Milliseconds of each of so many answers."""
    times = []
    for _ in range(number):
        start = time.perf_counter()
        await link.infer(request, timeout=10)
        times.append(1000 * (time.perf_counter() - start))
    return times


async def measure(
    devices: dict[str, DeviceProcess], links: dict[str, GrpcLink], bundle: Bundle
) -> dict[str, Measured]:
    """Install, warm up, and ask in turns."""
    submodel = bundle.manifest.submodels[0]
    image = bundle.vector(submodel.variant()).image
    request = question(bundle, image)
    measured = {name: Measured() for name in devices}
    for name, link in links.items():
        await install(link, Parcel(bundle, submodel.id, submodel.variant(), name))
        await ask(link, request, 1)
        measured[name].first_pss = jvm.pss(devices[name].pid)
        await ask(link, request, WARM_UP)
    for _ in range(TURNS):
        for name, link in links.items():
            measured[name].milliseconds += await ask(link, request, PICTURES_A_TURN)
    for name, device in devices.items():
        measured[name].last_pss = jvm.pss(device.pid)
    return measured


async def story(
    devices: dict[str, DeviceProcess], links: dict[str, GrpcLink], bundle: Bundle
) -> dict[str, Measured]:
    """All of it; the devices are started again at the end."""
    measured = await measure(devices, links, bundle)
    for link in links.values():
        await link.close()
    for _ in range(STARTS):
        for name, device in devices.items():
            device.stop()
            measured[name].starts.append(await found(device))
    return measured


def main(arguments: list[str]) -> None:
    """Print the table."""
    bundle = open_bundle(Path(arguments[0]) if arguments else ROOT / "tests/vectors/bundle")
    names = {"python": "oak", "jvm": "jay"}
    with (
        tempfile.TemporaryDirectory() as folder,
        device_fleet(list(names.values()), Path(folder), programs={"jay": jvm.program()}) as fleet,
    ):
        devices = {kind: next(d for d in fleet.devices if d.name == name) for kind, name in names.items()}

        async def work() -> dict[str, Measured]:
            links = {
                kind: GrpcLink(device.address, fleet.keys.credentials, device.id)
                for kind, device in devices.items()
            }
            return await story(devices, links, fleet.sign(bundle))

        measured = asyncio.run(work())
    print(f"{TURNS * PICTURES_A_TURN} pictures each, {bundle.manifest.submodels[0].variant().file}")
    print("| device | p50 ms | p95 ms | PSS MB, first | PSS MB, last | start to announced, s (median) |")
    print("|---|---|---|---|---|---|")
    for kind, one in measured.items():
        p50, p95 = np.percentile(one.milliseconds, [50, 95])
        print(
            f"| {kind} | {p50:.2f} | {p95:.2f} | {one.first_pss / 1e6:.0f} | {one.last_pss / 1e6:.0f} "
            f"| {statistics.median(one.starts):.1f} |"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
