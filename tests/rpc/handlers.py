"""Devices that do what a test wants."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable

from edvit_tf.errors import EdvitError
from edvit_tf.rpc.edvit_pb2 import (
    HelloReply,
    HelloRequest,
    InferReply,
    InferRequest,
    InstallReply,
    InstallRequest,
)
from edvit_tf.rpc.link import PROTOCOL


class Echo:
    """Answers at once, or after `delay` seconds, or raises `error`."""

    def __init__(
        self, *, delay: float = 0.0, error: EdvitError | None = None, device_id: str = "a" * 64
    ) -> None:
        self.id = device_id
        self.delay = delay
        self.error = error
        self.received = 0
        self.ended = False

    async def _answer(self) -> None:
        await asyncio.sleep(self.delay)
        if self.error is not None:
            raise self.error

    async def hello(self, request: HelloRequest) -> HelloReply:
        await self._answer()
        return HelloReply(protocol=PROTOCOL, id=self.id, name=request.software)

    def install(self, requests: AsyncIterable[InstallRequest]) -> AsyncGenerator[InstallReply, None]:
        return self._receive(requests, InstallReply.SERVING)

    def measure(self, requests: AsyncIterable[InstallRequest]) -> AsyncGenerator[InstallReply, None]:
        return self._receive(requests, InstallReply.MEASURED)

    async def _receive(
        self, requests: AsyncIterable[InstallRequest], last: InstallReply.Step
    ) -> AsyncGenerator[InstallReply, None]:
        try:
            async for request in requests:
                self.received += len(request.chunk)
                await self._answer()
                yield InstallReply(step=InstallReply.RECEIVING, received_bytes=self.received)
            yield InstallReply(step=last, received_bytes=self.received)
        finally:
            self.ended = True

    async def infer(self, request: InferRequest) -> InferReply:
        await self._answer()
        return InferReply(request_id=request.request_id, bundle_version=request.bundle_version)
