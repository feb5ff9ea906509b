"""The seam between an aggregator and a device: what a device implements, and what an aggregator calls.

`Link` has three implementations: `InProcessLink` here (tests, and a bundle that is tried before there is any
device), `GrpcLink` in `edvit_tf.rpc.channel` (the device is called) and `TunnelledLink` in
`edvit_tf.rpc.tunnelled` (the device has dialled in). All raise the same errors:

- `LinkError`: the device cannot be reached, or the connection broke;
- `DeadlineError`: the device did not answer in time;
- `ProtocolError`: the device speaks another protocol;
- `DeviceError`: the device answered that it refuses, or failed inside.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from typing import Protocol

from edvit_tf.errors import DeadlineError, ProtocolError
from edvit_tf.rpc.edvit_pb2 import (
    HelloReply,
    HelloRequest,
    InferReply,
    InferRequest,
    InstallReply,
    InstallRequest,
)

PROTOCOL = 1
CHUNK_BYTES = 256 << 10


class Handler(Protocol):
    """What a device implements.

    A handler raises `DeviceError` (with a sentence and a code) to refuse; any other exception is a bug.
    """

    async def hello(self, request: HelloRequest) -> HelloReply:
        """Answer the handshake with what this device is and holds."""
        ...

    def install(self, requests: AsyncIterable[InstallRequest]) -> AsyncGenerator[InstallReply, None]:
        """Take one sub-model; the last reply is SERVING or REFUSED."""
        ...

    def measure(self, requests: AsyncIterable[InstallRequest]) -> AsyncGenerator[InstallReply, None]:
        """Prove and measure one sub-model and keep nothing; the last reply is MEASURED or REFUSED."""
        ...

    async def infer(self, request: InferRequest) -> InferReply:
        """Run the named sub-models on one picture."""
        ...


class Link(Protocol):
    """What an aggregator calls; `timeout` is in seconds and has no default, so that no call can hang."""

    address: str

    async def hello(self, request: HelloRequest, *, timeout: float) -> HelloReply:
        """Say hello."""
        ...

    def install(
        self, requests: AsyncIterable[InstallRequest], *, timeout: float
    ) -> AsyncGenerator[InstallReply, None]:
        """Send one sub-model and yield the device's progress."""
        ...

    def measure(
        self, requests: AsyncIterable[InstallRequest], *, timeout: float
    ) -> AsyncGenerator[InstallReply, None]:
        """Send one sub-model that is only measured and yield the device's progress."""
        ...

    async def infer(self, request: InferRequest, *, timeout: float, rest: bytes = b"") -> InferReply:
        """Send one picture and return the device's outputs.

        `rest` is a part of the request that is serialised already, such as a picture that goes to several
        devices: messages of protobuf that follow each other are one.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection; calls under way end with `LinkError`."""
        ...


class InProcessLink:
    """A link to a handler in this very process: no socket, the same deadlines and the same errors."""

    def __init__(self, handler: Handler, address: str = "in-process") -> None:
        self.address = address
        self._handler = handler

    async def hello(self, request: HelloRequest, *, timeout: float) -> HelloReply:
        """Say hello to the handler."""
        try:
            async with asyncio.timeout(timeout):
                return await self._handler.hello(request)
        except TimeoutError:
            raise late(self.address, timeout) from None

    def install(
        self, requests: AsyncIterable[InstallRequest], *, timeout: float
    ) -> AsyncGenerator[InstallReply, None]:
        """Send one sub-model to the handler and yield its progress."""
        return self._within(timeout, self._handler.install(requests))

    def measure(
        self, requests: AsyncIterable[InstallRequest], *, timeout: float
    ) -> AsyncGenerator[InstallReply, None]:
        """Have the handler measure one sub-model and yield its progress."""
        return self._within(timeout, self._handler.measure(requests))

    async def _within(
        self, timeout: float, replies: AsyncGenerator[InstallReply, None]
    ) -> AsyncGenerator[InstallReply, None]:
        try:
            async with asyncio.timeout(timeout), aclosing(replies):
                async for reply in replies:
                    yield reply
        except TimeoutError:
            raise late(self.address, timeout) from None

    async def infer(self, request: InferRequest, *, timeout: float, rest: bytes = b"") -> InferReply:
        """Send one picture to the handler."""
        whole = InferRequest.FromString(request.SerializeToString() + rest)
        try:
            async with asyncio.timeout(timeout):
                return await self._handler.infer(whole)
        except TimeoutError:
            raise late(self.address, timeout) from None

    async def close(self) -> None:
        """Nothing to let go of."""


def late(address: str, timeout: float) -> DeadlineError:
    """The error for an answer that did not come within `timeout` seconds."""
    return DeadlineError(f"the device at {address} did not answer within {timeout:.3g} s")


def check_protocol(theirs: int, who: str) -> None:
    """Accept this protocol and the one before it.

    Raises:
        ProtocolError: for any other; the sentence says which side to update.
    """
    if theirs in (PROTOCOL - 1, PROTOCOL):
        return
    update = "this side" if theirs > PROTOCOL else who
    raise ProtocolError(
        f"{who} speaks protocol {theirs} and this side {PROTOCOL} (or one older): update edvit-tf on {update}"
    )
