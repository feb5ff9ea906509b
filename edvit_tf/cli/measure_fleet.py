"""The measurements of `edvit-tf fleet benchmark`; compared figures come from one run, in turns."""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np

from edvit_tf.bundle.reader import Bundle, open_bundle
from edvit_tf.cli.demo_devices import ThrowAwayFleet, device_fleet, read_line
from edvit_tf.cli.idle_device import ECHO
from edvit_tf.cli.idle_fleet import SIDE, IdleFleet, idle_bundle, idle_fleet
from edvit_tf.errors import DeviceError
from edvit_tf.fleet import Aggregator, Announced, at_address, deploy
from edvit_tf.fleet.discover import Browser
from edvit_tf.fleet.keeper import Keeper
from edvit_tf.fleet.state import FleetState
from edvit_tf.fleet.wire import WireSettings
from edvit_tf.rpc.certificates import device_name
from edvit_tf.rpc.channel import CLIENT_OPTIONS, GrpcLink
from edvit_tf.rpc.codecs import RAW, encode
from edvit_tf.rpc.edvit_pb2 import InferRequest
from edvit_tf.rpc.link import Link
from edvit_tf.rpc.tls import channel_credentials

ANNOUNCED = 30
CALLS_A_ROUND = 10
AT_ONCE = 4
WARM_UP = 30
PATIENCE_SECONDS = 60.0

Call = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Answers:
    """Medians in milliseconds and calls a second, of whole answers and of bare fan-outs, and their ratios."""

    devices: int
    request_bytes: int
    answer_milliseconds: float
    bare_milliseconds: float
    overhead_ratio: float
    answers_a_second: float
    bare_a_second: float
    throughput_ratio: float

    def to_json(self) -> dict[str, Any]:
        """The figures by name."""
        return asdict(self)


async def measure_answers(rounds: int) -> Answers:
    """Whole answers against bare calls to the same ten processes, in turns."""
    with tempfile.TemporaryDirectory(prefix="edvit-idle-") as folder:
        bundle = idle_bundle(Path(folder) / "bundle")
        with idle_fleet(bundle) as fleet:
            async with AsyncExitStack() as exits:
                return await _answers(bundle, fleet, rounds, exits)


async def _answers(bundle: Bundle, fleet: IdleFleet, rounds: int, exits: AsyncExitStack) -> Answers:
    def connect(address: str, device: str) -> Link:
        return GrpcLink(address, fleet.credentials, device)

    aggregator = await exits.enter_async_context(
        Aggregator(bundle, fleet.deployment, connect=connect, browse=False, wire=WireSettings(RAW))
    )
    if not await aggregator.complete(PATIENCE_SECONDS):
        raise DeviceError(f"the idle devices are not up: {[row.reason for row in aggregator.status()]}")
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    request = _request(bundle, image)
    calls = [await exits.enter_async_context(_bare(device, fleet)) for device in fleet.bare]
    echoes = [call.unary_unary(ECHO) for call in calls]

    async def answer() -> None:
        if not (await aggregator.classify(image)).complete:
            raise DeviceError("an idle device did not answer")

    async def fan_out() -> None:
        await asyncio.gather(*(echo(request, timeout=2.0) for echo in echoes))

    for call in (answer, fan_out):
        for _ in range(WARM_UP):
            await call()
    answers: list[float] = []
    bare: list[float] = []
    answers_a_second: list[float] = []
    bare_a_second: list[float] = []
    for _ in range(rounds):
        answers += await _times(answer)
        bare += await _times(fan_out)
        answers_a_second.append(await _rate(answer))
        bare_a_second.append(await _rate(fan_out))
    answer_median, bare_median = statistics.median(answers), statistics.median(bare)
    answer_rate, bare_rate = statistics.median(answers_a_second), statistics.median(bare_a_second)
    return Answers(
        devices=len(fleet.bare),
        request_bytes=len(request),
        answer_milliseconds=1000 * answer_median,
        bare_milliseconds=1000 * bare_median,
        overhead_ratio=answer_median / bare_median,
        answers_a_second=answer_rate,
        bare_a_second=bare_rate,
        throughput_ratio=answer_rate / bare_rate,
    )


def _request(bundle: Bundle, image: np.ndarray) -> bytes:
    """As many bytes as a device is sent."""
    manifest = bundle.manifest
    return InferRequest(
        request_id="0" * 16,
        bundle=manifest.name,
        bundle_version=manifest.version,
        submodels=[manifest.submodels[0].id],
        manifest=bytes(32),
        picture=encode(image),
    ).SerializeToString()


def _bare(device: Announced, fleet: IdleFleet) -> Any:
    options = [*CLIENT_OPTIONS, ("grpc.ssl_target_name_override", device_name(device.id))]
    return grpc.aio.secure_channel(device.address, channel_credentials(fleet.credentials), options=options)


async def _times(call: Call) -> list[float]:
    """Seconds of each call, one after the other."""
    times = []
    for _ in range(CALLS_A_ROUND):
        start = time.perf_counter()
        await call()
        times.append(time.perf_counter() - start)
    return times


async def _rate(call: Call) -> float:
    """Calls a second, with several under way."""

    async def some() -> None:
        for _ in range(CALLS_A_ROUND):
            await call()

    start = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    return AT_ONCE * CALLS_A_ROUND / (time.perf_counter() - start)


def measure_discovery() -> float:
    """Seconds until this process has found `ANNOUNCED` devices that another one announces.

    Raises:
        DeviceError: they were not announced or found within `PATIENCE_SECONDS`.
    """
    announcing = subprocess.Popen(
        [sys.executable, "-m", "edvit_tf.cli.idle_announcements", str(ANNOUNCED)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with announcing:
        try:
            if announcing.stdout is None:
                raise DeviceError("the announcements were started without an output to read")
            try:
                wanted = set(json.loads(read_line(announcing.stdout, PATIENCE_SECONDS)))
            except ValueError:
                raise DeviceError("the devices could not be announced") from None
            return asyncio.run(_until_found(wanted))
        finally:
            announcing.kill()


async def _until_found(wanted: set[str]) -> float:
    missing, over = set(wanted), asyncio.Event()

    def on_found(device: Announced) -> None:
        missing.discard(device.id)
        if not missing:
            over.set()

    start = time.perf_counter()
    async with Browser(on_found):
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await over.wait()
        except TimeoutError:
            raise DeviceError(f"{len(missing)} of {len(wanted)} announced devices were not found") from None
        return time.perf_counter() - start


def measure_failover(folder: Path) -> float:
    """Seconds from a device that is killed to the next complete answer, with another that has room.

    The devices are processes that have joined a throw-away fleet, one more than the bundle has sub-models,
    and never fewer than three: half of a fleet that is lost moves nothing.

    Raises:
        BundleError: the folder is no bundle.
        DeviceError: the answers did not become complete again within `PATIENCE_SECONDS`.
    """
    bundle = open_bundle(folder)
    names = [f"device-{number}" for number in range(max(3, len(bundle.manifest.submodels) + 1))]
    with (
        tempfile.TemporaryDirectory(prefix="edvit-failover-") as place,
        device_fleet(names, Path(place)) as fleet,
        FleetState(fleet.folder) as state,
    ):
        return asyncio.run(_failover(bundle, fleet, state))


async def _failover(bundle: Bundle, fleet: ThrowAwayFleet, state: FleetState) -> float:
    signed = fleet.sign(bundle)
    found = [at_address(device.address) for device in fleet.devices]
    state.deploy(signed, await deploy(signed, found, connect=fleet.connect))
    size = bundle.manifest.input
    image = np.zeros((size.height, size.width, size.channels), np.uint8)
    async with Keeper(state, fleet.connect, deadline=2.0) as keeper:
        if not await keeper.aggregator.complete(PATIENCE_SECONDS):
            raise DeviceError("the devices are not up")
        holder = keeper.aggregator.deployment.holder(bundle.manifest.submodels[0].id)
        next(device for device in fleet.devices if device.id == holder).kill()
        start = time.perf_counter()
        while not (await keeper.aggregator.classify(image)).complete:
            if time.perf_counter() - start > PATIENCE_SECONDS:
                raise DeviceError("what the killed device held was not moved")
            await asyncio.sleep(0.02)
        return time.perf_counter() - start
