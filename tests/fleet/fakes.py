"""Devices in this process, some of which misbehave, and a network that finds them by address."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterable, Callable

import numpy as np

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import DeviceError, LinkError, ProtocolError
from edvit_tf.fleet import Announced, Deployment
from edvit_tf.rpc.edvit_pb2 import (
    Generation,
    HelloReply,
    HelloRequest,
    Holding,
    InferReply,
    InferRequest,
    InstallReply,
    InstallRequest,
    Output,
)
from edvit_tf.rpc.link import PROTOCOL, InProcessLink
from edvit_tf.runtime.fusion import Fusion
from edvit_tf.runtime.interpreter import Flatbuffer

RUNTIME = "ai-edge-litert/9.0"


def device_id(number: int) -> str:
    return f"{number:064x}"


class FakeDevice:
    """Says of a sub-model what the bundle's test vector says; takes whatever is installed.

    `delay` seconds pass before every answer; `spoil` changes an answer; `alive` False cuts the wire; of so
    many pictures as `resets` says the connection breaks. `measures` are the microseconds that it says in
    turn of what it is to measure; without any it is too old to know how.
    """

    def __init__(self, number: int, bundle: Bundle, *, memory_bytes: int = 10**9) -> None:
        self.id = device_id(number)
        self.name = f"fake-{number}"
        self.bundle = bundle
        self.protocol = PROTOCOL
        self.runtime = RUNTIME
        self.instance = b""
        self.memory_bytes = memory_bytes
        self.delay = 0.0
        self.alive = True
        self.resets = 0
        self.spoil: Callable[[InferReply], None] | None = None
        self.refuses = ""
        self.measures: list[int] = []
        self.measured = 0
        self.served: dict[str, str] = {}
        self.version = 0
        self.hellos = 0
        self.installs = 0
        self.asked: list[InferRequest] = []
        self.settled: list[bytes] = []

    async def hello(self, request: HelloRequest) -> HelloReply:
        self.hellos += 1
        await self._reachable()
        return HelloReply(
            protocol=self.protocol,
            id=self.id,
            name=self.name,
            runtime=self.runtime,
            software=request.software,
            instance=self.instance,
            memory_bytes=self.memory_bytes,
            energy_joules=1000,
            joules_per_mac=1e-9,
            bundle=self.bundle.manifest.name if self.version else "",
            bundle_version=self.version,
            holdings=self.holdings(),
            generations=[
                Generation(
                    bundle=self.bundle.manifest.name,
                    version=self.version,
                    manifest=hashlib.sha256(self.bundle.manifest_bytes).digest(),
                    settled=True,
                    holdings=self.holdings(),
                )
            ]
            if self.version == self.bundle.manifest.version
            else [],
        )

    def holdings(self) -> list[Holding]:
        return [
            Holding(submodel=submodel, sha256=sha256, format="f32", serving=True)
            for submodel, sha256 in self.served.items()
        ]

    async def install(self, requests: AsyncIterable[InstallRequest]) -> AsyncGenerator[InstallReply, None]:
        await self._reachable()
        parts = aiter(requests)
        first = await anext(parts)
        if first.WhichOneof("part") == "release":
            for released in first.release.submodels:
                self.served.pop(released, None)
            yield InstallReply(step=InstallReply.SERVING)
            return
        if first.WhichOneof("part") == "settle":
            self.settled.append(first.settle.manifest)
            yield InstallReply(step=InstallReply.SERVING)
            return
        yield InstallReply(step=InstallReply.RECEIVING)
        header, received = first.header, sum([len(part.chunk) async for part in parts])
        self.installs += 1
        yield InstallReply(step=InstallReply.RECEIVING, received_bytes=received)
        if self.refuses:
            yield InstallReply(step=InstallReply.REFUSED, reason=self.refuses)
            return
        submodel = self.bundle.manifest.submodel(header.submodel)
        variant = next(variant for variant in submodel.variants if variant.file == header.variant)
        self.served[submodel.id] = variant.sha256
        self.version = self.bundle.manifest.version
        yield InstallReply(step=InstallReply.SERVING, received_bytes=received)

    async def measure(self, requests: AsyncIterable[InstallRequest]) -> AsyncGenerator[InstallReply, None]:
        await self._reachable()
        if not self.measures:
            raise ProtocolError("what listens there is of another version")
        header = InstallRequest()
        async for part in requests:
            if part.WhichOneof("part") == "header":
                header = part
                yield InstallReply(step=InstallReply.RECEIVING)
        if self.refuses:
            yield InstallReply(step=InstallReply.REFUSED, reason=self.refuses)
            return
        took = self.measures[self.measured % len(self.measures)]
        self.measured += bool(header.header.variant)
        yield InstallReply(step=InstallReply.MEASURED, microseconds=took)

    async def infer(self, request: InferRequest) -> InferReply:
        self.asked.append(request)
        if self.resets:
            self.resets -= 1
            raise LinkError("the connection was reset")
        await self._reachable()
        if not set(request.submodels) <= self.served.keys():
            raise DeviceError("not here", code="device.submodel")
        reply = InferReply(
            request_id=request.request_id, bundle_version=request.bundle_version, manifest=request.manifest
        )
        for submodel in request.submodels:
            vector = self.bundle.vector(self.bundle.manifest.submodel(submodel).variants[0])
            reply.outputs.append(
                Output(
                    submodel=submodel,
                    feature=vector.feature.tobytes(),
                    logits=vector.logits.tobytes(),
                    microseconds=5,
                )
            )
        if self.spoil is not None:
            self.spoil(reply)
        return reply

    async def _reachable(self) -> None:
        if not self.alive:
            raise LinkError("the wire is cut")
        await asyncio.sleep(self.delay)


class Network:
    """Fake devices by address, "0" and up."""

    def __init__(self, *devices: FakeDevice) -> None:
        self.devices = {str(number): device for number, device in enumerate(devices)}
        self.tried: list[str] = []

    def connect(self, address: str, device_id: str = "") -> InProcessLink:
        del device_id
        self.tried.append(address)
        if address not in self.devices:
            return InProcessLink(_Nobody(), address)
        return InProcessLink(self.devices[address], address)

    @property
    def announced(self) -> list[Announced]:
        return [Announced(address, device.id, device.name) for address, device in self.devices.items()]


class _Nobody(FakeDevice):
    def __init__(self) -> None:
        self.alive = False
        self.hellos = 0


def fleet_of(bundle: Bundle) -> tuple[Network, Deployment]:
    """A device for each sub-model, which it holds already."""
    submodels = [submodel.id for submodel in bundle.manifest.submodels]
    devices = [FakeDevice(number, bundle) for number in range(len(submodels))]
    for device, submodel in zip(devices, submodels, strict=True):
        device.served = {submodel: bundle.manifest.submodel(submodel).variants[0].sha256}
        device.version = bundle.manifest.version
    network = Network(*devices)
    assignment = {submodel: device.id for submodel, device in zip(submodels, devices, strict=True)}
    return network, Deployment(assignment, tuple(network.announced))


def picture(bundle: Bundle, seed: int = 0) -> np.ndarray:
    size = bundle.manifest.input
    shape = (size.height, size.width, size.channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def possible_answers(bundle: Bundle, image: np.ndarray) -> list[list[float]]:
    """The probabilities for every choice of variants: each device keeps the one that it runs fastest."""
    fusion = Fusion(bundle)
    features = [
        [
            (submodel.id, Flatbuffer(bundle.file(variant.file)).run(image).feature)
            for variant in submodel.variants
        ]
        for submodel in bundle.manifest.submodels
    ]
    return [fusion.probabilities(dict(choice)).tolist() for choice in itertools.product(*features)]
