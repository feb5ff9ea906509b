"""gRPC: the link that crosses a network, and the server a device opens.

The only place that knows gRPC's errors. A refusal travels as FAILED_PRECONDITION with our code beside it, so
that `DeviceError("…", code="device.memory")` raised on the device is the same error at the aggregator.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

# We start children only through subprocess; gRPC's fork handlers would do nothing but complain about it.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# What it would log, we raise.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import grpc.aio

from edvit_tf.errors import DeviceError, EdvitError, LinkError, ProtocolError
from edvit_tf.rpc import edvit_pb2_grpc
from edvit_tf.rpc.edvit_pb2 import (
    HelloReply,
    HelloRequest,
    InferReply,
    InferRequest,
    InstallReply,
    InstallRequest,
)
from edvit_tf.rpc.link import Handler, late

# A picture of 1,500 × 1,500 pixels in colour, and a manifest of thousands of files, fit.
MESSAGE_BYTES = 8 << 20
CODE_KEY = "edvit-code"

_LIMITS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
]
_CLIENT_OPTIONS = [
    *_LIMITS,
    # A device is reached directly, whatever proxy the environment names.
    ("grpc.enable_http_proxy", 0),
    # Otherwise a new channel to the same address inherits the old one's waiting time after a failure.
    ("grpc.use_local_subchannel_pool", 1),
]
# Without this two devices could share a port, and each would get every other call.
_SERVER_OPTIONS = [*_LIMITS, ("grpc.so_reuseport", 0)]


class GrpcLink:
    """A link to the device at `address` ("host:port")."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._channel = grpc.aio.insecure_channel(address, options=_CLIENT_OPTIONS)
        self._closed = False
        self._stub = edvit_pb2_grpc.DeviceStub(self._channel)

    async def hello(self, request: HelloRequest, *, timeout: float) -> HelloReply:
        """Say hello."""
        with self._translated(timeout):
            reply: HelloReply = await self._stub.Hello(request, timeout=timeout)
        return reply

    async def install(
        self, requests: AsyncIterable[InstallRequest], *, timeout: float
    ) -> AsyncGenerator[InstallReply, None]:
        """Send one sub-model and yield the device's progress."""
        call = self._stub.Install(requests, timeout=timeout)
        try:
            with self._translated(timeout):
                async for reply in call:
                    yield reply
        finally:
            call.cancel()  # a caller that gives up stops the device too

    async def infer(self, request: InferRequest, *, timeout: float) -> InferReply:
        """Send one picture and return the device's outputs."""
        with self._translated(timeout):
            reply: InferReply = await self._stub.Infer(request, timeout=timeout)
        return reply

    async def close(self) -> None:
        """Close the channel; calls under way end with `LinkError`."""
        self._closed = True
        await self._channel.close()

    @contextmanager
    def _translated(self, timeout: float) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise _translate(error, self.address, timeout) from error
        except (asyncio.CancelledError, grpc.aio.UsageError) as error:
            # gRPC says the same when its channel was closed as when our own task is cancelled.
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            raise LinkError(f"the connection to the device at {self.address} was closed") from error


def _translate(error: Any, address: str, timeout: float) -> EdvitError:
    status = grpc.StatusCode
    details = (error.details() or "").strip().rstrip(".")
    match error.code():
        case status.DEADLINE_EXCEEDED:
            return late(address, timeout)
        case status.UNAVAILABLE | status.CANCELLED:
            return LinkError(
                f"the device at {address} cannot be reached ({details or 'connection lost'}): "
                "check that `edvit-tf device run` is running there"
            )
        case status.FAILED_PRECONDITION:
            code = dict(error.trailing_metadata() or ()).get(CODE_KEY, DeviceError.code)
            if code == ProtocolError.code:
                return ProtocolError(details)
            return DeviceError(details, code=code)
        case status.UNIMPLEMENTED:
            return ProtocolError(
                f"what listens at {address} is no edvit-tf device, or one of another version"
            )
        case _:
            return DeviceError(f"the device at {address} failed: {details or error.code().name}")


class _Servicer:
    """Hands gRPC's calls to a handler, and the handler's refusals to gRPC."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def Hello(self, request: HelloRequest, context: Any) -> HelloReply:  # noqa: N802 (the proto's name)
        try:
            return await self._handler.hello(request)
        except EdvitError as error:
            raise await _refuse(context, error) from error

    async def Install(  # noqa: N802
        self, requests: AsyncIterable[InstallRequest], context: Any
    ) -> AsyncGenerator[InstallReply, None]:
        try:
            async with aclosing(self._handler.install(requests)) as replies:
                async for reply in replies:
                    yield reply
        except EdvitError as error:
            raise await _refuse(context, error) from error

    async def Infer(self, request: InferRequest, context: Any) -> InferReply:  # noqa: N802
        try:
            return await self._handler.infer(request)
        except EdvitError as error:
            raise await _refuse(context, error) from error


async def _refuse(context: Any, error: EdvitError) -> EdvitError:
    await context.abort(
        grpc.StatusCode.FAILED_PRECONDITION, error.message, trailing_metadata=((CODE_KEY, error.code),)
    )
    return error


class Server:
    """A device's open port."""

    def __init__(self, server: Any, address: str, port: int) -> None:
        self._server = server
        self.address = address
        self.port = port

    async def stop(self, grace: float) -> None:
        """Take no new calls, and give those under way `grace` seconds."""
        await self._server.stop(grace)


async def serve_grpc(handler: Handler, address: str, port: int) -> Server:
    """Serve `handler` on `address` (an IP address) and `port` (0: any free one).

    Raises:
        LinkError: when the port is taken or the address is not this machine's.
    """
    server = grpc.aio.server(options=_SERVER_OPTIONS)
    edvit_pb2_grpc.add_DeviceServicer_to_server(_Servicer(handler), server)
    host = f"[{address}]" if ":" in address else address
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise LinkError(
            f"cannot listen on {address} port {port}: choose another --port (0 takes any free one) "
            "or stop what is using it",
            code="link.port",
        ) from error
    await server.start()
    return Server(server, address, bound)
