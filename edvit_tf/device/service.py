"""What a device answers: hello, install, measure, infer."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from edvit_tf import __version__
from edvit_tf.device.install import Installer
from edvit_tf.device.served import Shelf
from edvit_tf.errors import DeviceError, EdvitError
from edvit_tf.rpc.codecs import RAW, decodable, decode
from edvit_tf.rpc.edvit_pb2 import (
    HelloReply,
    HelloRequest,
    InferReply,
    InferRequest,
    InstallReply,
    InstallRequest,
    Output,
    Picture,
)
from edvit_tf.rpc.link import PROTOCOL, check_protocol
from edvit_tf.runtime.delegate import Accelerator

INSTANCE_BYTES = 16

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a device says of itself.

    `memory_bytes` is what it gives to sub-models, `kind` the machine ("x86_64 Linux"). `energy_joules` and
    `joules_per_mac` only matter against those of the other devices.
    """

    id: str
    name: str
    runtime: str
    memory_bytes: int
    energy_joules: float = 1000.0
    joules_per_mac: float = 1e-9
    accelerator: str = ""
    accelerator_reason: str = Accelerator().reason
    targets: tuple[str, ...] = ("any", "cpu")
    kind: str = ""
    cores: int = 0


class DeviceService:
    """A device's side of the protocol (`edvit_tf.rpc.link.Handler`)."""

    def __init__(self, facts: Facts, shelf: Shelf, installer: Installer | None = None) -> None:
        self.facts = facts
        self._shelf = shelf
        self._installer = installer
        self._installing = asyncio.Lock()
        self._measuring = asyncio.Lock()
        self._instance = secrets.token_bytes(INSTANCE_BYTES)

    @property
    def shelf(self) -> Shelf:
        """What the device holds at this moment."""
        return self._shelf

    def close(self) -> None:
        """End the threads of the sub-models, and wait until they have ended: a process would end in them."""
        self._shelf.close(wait=True)

    async def hello(self, request: HelloRequest) -> HelloReply:
        """Say what this device is and holds; raises ProtocolError to an aggregator of another age."""
        check_protocol(request.protocol, "the aggregator")
        facts = self.facts
        first = self._shelf.first
        return HelloReply(
            protocol=PROTOCOL,
            id=facts.id,
            name=facts.name,
            software=__version__,
            runtime=facts.runtime,
            accelerator=facts.accelerator,
            accelerator_reason=facts.accelerator_reason,
            memory_bytes=facts.memory_bytes,
            energy_joules=facts.energy_joules,
            joules_per_mac=facts.joules_per_mac,
            bundle=first.bundle,
            bundle_version=first.version,
            holdings=first.holdings(),
            generations=self._shelf.say(),
            targets=facts.targets,
            instance=self._instance,
            codecs=decodable(),
            kind=facts.kind,
            cores=facts.cores,
        )

    async def install(self, requests: AsyncIterable[InstallRequest]) -> AsyncGenerator[InstallReply, None]:
        """Take one sub-model, or settle; what served before goes on until the new one has proved itself."""
        try:
            if self._installer is None:
                raise DeviceError("this device takes no sub-models", code="device.fixed")
            if self._installing.locked():
                raise DeviceError("another sub-model is being installed: try again", code="device.busy")
            replies = self._installer.install(requests, self._shelf, self._swap)
            async with self._installing, aclosing(replies):
                async for reply in replies:
                    yield reply
        except EdvitError as error:
            log.warning("refused: %s", error.message)
            yield InstallReply(step=InstallReply.REFUSED, reason=error.message, code=error.code)

    async def measure(self, requests: AsyncIterable[InstallRequest]) -> AsyncGenerator[InstallReply, None]:
        """Prove and measure one sub-model that is not kept; it gives way when one is to be installed."""
        busy = DeviceError("a sub-model is being installed or measured: try again", code="device.busy")
        try:
            if self._installer is None:
                raise DeviceError("this device takes no sub-models", code="device.fixed")
            if self._measuring.locked():
                raise busy
            replies = self._installer.measure(requests, self._shelf)
            async with self._measuring, aclosing(replies):
                async for reply in replies:
                    if self._installing.locked():
                        raise busy
                    yield reply
        except EdvitError as error:
            log.warning("not measured: %s", error.message)
            yield InstallReply(step=InstallReply.REFUSED, reason=error.message, code=error.code)

    def _swap(self, shelf: Shelf) -> None:
        before, self._shelf = self._shelf, shelf
        before.close(but=shelf)

    async def infer(self, request: InferRequest) -> InferReply:
        """Run the named sub-models on one picture.

        Raises:
            DeviceError: for another bundle or version (`device.version`), a sub-model that is not here or
                does not serve (`device.submodel`), or what is no picture of its shape (`device.picture`).
        """
        served = self._shelf.asked(request)
        engines = [served.engine(submodel) for submodel in request.submodels]
        image, decoding = await _decoded(request.picture, served.shape)
        results = await asyncio.gather(*(engine.run(image) for engine in engines))
        return InferReply(
            request_id=request.request_id,
            bundle_version=served.version,
            manifest=bytes.fromhex(served.manifest),
            outputs=[
                Output(
                    submodel=submodel,
                    feature=output.feature.astype("<f4").tobytes(),
                    logits=output.logits.astype("<f4").tobytes(),
                    microseconds=microseconds,
                )
                for submodel, (output, microseconds) in zip(request.submodels, results, strict=True)
            ],
            decode_microseconds=decoding,
        )


async def _decoded(picture: Picture, shape: tuple[int, int, int]) -> tuple[np.ndarray, int]:
    """The picture uint8 [h, w, c], and the microseconds that its codec took. The port stays awake."""
    if picture.codec == RAW:
        return decode(picture, shape), 0

    def work() -> tuple[np.ndarray, int]:
        start = time.perf_counter_ns()
        return decode(picture, shape), (time.perf_counter_ns() - start) // 1000

    return await asyncio.to_thread(work)
