"""gRPC: calls to a device over a channel, the link that opens one, and the server a device opens.

The only place that knows gRPC's errors. A refusal travels as FAILED_PRECONDITION with our code beside it, so
that `DeviceError("…", code="device.memory")` raised on the device is the same error at the aggregator.
"""

import asyncio
import inspect
import socket
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import grpc
import grpc.aio

from edvit_tf.errors import DeviceError, EdvitError, LinkError, ProtocolError, TrustError
from edvit_tf.rpc import edvit_pb2_grpc
from edvit_tf.rpc.certificates import AGGREGATOR, ANY_DEVICE, ID_LENGTH, device_name
from edvit_tf.rpc.conversation import Answering, Conversation, checked
from edvit_tf.rpc.edvit_pb2 import (
    CertificateReply,
    CertificateRequest,
    HelloReply,
    HelloRequest,
    InferReply,
    InferRequest,
    InstallReply,
    InstallRequest,
    JournalLine,
    JournalRequest,
)
from edvit_tf.rpc.link import Handler, late
from edvit_tf.rpc.text import LONGEST_REASON, clean_code, clean_text
from edvit_tf.rpc.tls import Credentials, channel_credentials, server_credentials

# A picture of 1,500 × 1,500 pixels in colour, and a manifest of thousands of files, fit.
MESSAGE_BYTES = 8 << 20
CODE_KEY = "edvit-code"
INFER = "/edvit.v1.Device/Infer"

# Whoever can open a connection is nobody yet: so many may try at once, and so long each.
MOST_CONNECTIONS = 64
HANDSHAKE_SECONDS = 5
# A picture waits its turn in memory: beyond this a device says that it is busy.
MOST_CALLS = 64

# A connection whose other end has vanished without a word is given up after these. Heartbeats find that
# sooner; this is for what runs beside them, and for a device whose aggregator is gone.
KEEPALIVE_SECONDS = 10
KEEPALIVE_ANSWER_SECONDS = 10

_KEEPALIVE = [
    ("grpc.keepalive_time_ms", 1000 * KEEPALIVE_SECONDS),
    ("grpc.keepalive_timeout_ms", 1000 * KEEPALIVE_ANSWER_SECONDS),
    ("grpc.keepalive_permit_without_calls", 1),
]
_LIMITS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
]
CLIENT_OPTIONS = [
    *_LIMITS,
    *_KEEPALIVE,
    # A device is reached directly, whatever proxy the environment names.
    ("grpc.enable_http_proxy", 0),
    # Otherwise a new channel to the same address inherits the old one's waiting time after a failure.
    ("grpc.use_local_subchannel_pool", 1),
]
SERVER_OPTIONS = [
    *_LIMITS,
    *_KEEPALIVE,
    # Pings of a client that keeps to the interval above are never too many.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 500 * KEEPALIVE_SECONDS),
    # Without this two devices could share a port, and each would get every other call.
    ("grpc.so_reuseport", 0),
    ("grpc.max_allowed_incoming_connections", MOST_CONNECTIONS),
    ("grpc.server_handshake_timeout_ms", 1000 * HANDSHAKE_SECONDS),
    ("grpc.max_concurrent_streams", MOST_CALLS),
]


class ChannelLink:
    """Calls to a device over a channel of gRPC's kind, which is closed with it.

    `advice` says what to do about a device that cannot be reached.
    """

    advice = "check that `edvit-tf device run` is running there"

    def __init__(self, address: str, channel: Any) -> None:
        self.address = address
        self._closed = False
        self._use(channel)

    def _use(self, channel: Any) -> None:
        self._channel = channel
        self._stub = edvit_pb2_grpc.DeviceStub(channel)
        self._conversation: Conversation | None = None

    def _asking(self) -> Conversation:
        """The stream that pictures go over, opened when it is first needed and again after it broke."""
        if self._conversation is None or self._conversation.ended:
            # Of serialised requests: a picture is serialised once, not once a device.
            with self._translated(0.0):
                call = self._channel.stream_stream(INFER, response_deserializer=InferReply.FromString)()
            self._conversation = Conversation(call, self._broken)
        return self._conversation

    def _broken(self, error: Any) -> EdvitError:
        if error is None or self._closed:
            return LinkError(f"the connection to the device at {self.address} was closed")
        return _translate(error, self.address, 0.0, self.advice)

    async def hello(self, request: HelloRequest, *, timeout: float) -> HelloReply:
        """Say hello."""
        with self._translated(timeout):
            reply: HelloReply = await self._stub.Hello(request, timeout=timeout)
        return reply

    def install(
        self, requests: AsyncIterable[InstallRequest], *, timeout: float
    ) -> AsyncGenerator[InstallReply, None]:
        """Send one sub-model and yield the device's progress."""
        return self._send(self._stub.Install, requests, timeout)

    def measure(
        self, requests: AsyncIterable[InstallRequest], *, timeout: float
    ) -> AsyncGenerator[InstallReply, None]:
        """Send one sub-model that is only measured and yield the device's progress."""
        return self._send(self._stub.Measure, requests, timeout)

    async def _send(
        self, method: Any, requests: AsyncIterable[InstallRequest], timeout: float
    ) -> AsyncGenerator[InstallReply, None]:
        with self._translated(timeout):
            call = method(requests, timeout=timeout)
            try:
                async for reply in call:
                    yield reply
            finally:
                call.cancel()  # a caller that gives up stops the device too

    async def infer(self, request: InferRequest, *, timeout: float, rest: bytes = b"") -> InferReply:
        """Send one picture and return the device's outputs."""
        try:
            reply = await self._asking().ask(request.SerializeToString(), rest, timeout=timeout)
        except TimeoutError:
            raise late(self.address, timeout) from None
        return checked(reply)

    async def certificate(self, newer: bytes = b"", *, timeout: float) -> bytes:
        """Give the device a newer certificate (DER), or only ask; return the one that it shows."""
        with self._translated(timeout):
            stub = edvit_pb2_grpc.MembershipStub(self._channel)
            reply: CertificateReply = await stub.Certificate(
                CertificateRequest(certificate=newer), timeout=timeout
            )
        return reply.certificate

    async def journal(self, last: int, *, follow: bool, timeout: float | None) -> AsyncGenerator[str, None]:
        """The last lines of the device's log as JSON, and with `follow` those that come; None: for ever."""
        stub = edvit_pb2_grpc.JournalStub(self._channel)
        with self._translated(timeout or 0.0):
            call = stub.Read(JournalRequest(last=last, follow=follow), timeout=timeout)
            try:
                async for line in call:
                    yield line.json
            finally:
                call.cancel()

    async def close(self) -> None:
        """Close the channel; calls under way end with `LinkError`."""
        self._closed = True
        if self._conversation is not None:
            await self._conversation.close()
        await self._channel.close()

    @contextmanager
    def _translated(self, timeout: float) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            if self._closed:
                raise self._broken(None) from error
            raise _translate(error, self.address, timeout, self.advice) from error
        except (asyncio.CancelledError, grpc.aio.UsageError) as error:
            # gRPC says the same when its channel was closed as when our own task is cancelled.
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            raise self._broken(None) from error


class GrpcLink(ChannelLink):
    """A link to the device that listens at `address` ("host:port"), over mutual TLS.

    Nothing is sent before the peer has proved that it holds the key of `device_id`; empty means any device of
    the fleet.
    """

    def __init__(self, address: str, credentials: Credentials, device_id: str = "") -> None:
        super().__init__(address, _channel(address, credentials, device_id))
        self._credentials = credentials
        self._pinned = bool(device_id)

    async def hello(self, request: HelloRequest, *, timeout: float) -> HelloReply:
        """Say hello."""
        reply = await super().hello(request, timeout=timeout)
        if not self._pinned and len(reply.id) == ID_LENGTH:
            # Some device of the fleet says who it is: from here on TLS makes it prove that.
            self._pinned = True
            await self._channel.close()
            self._use(_channel(self.address, self._credentials, reply.id))
            reply = await super().hello(request, timeout=timeout)
        return reply


def _channel(address: str, credentials: Credentials, device_id: str) -> Any:
    name = device_name(device_id) if device_id else ANY_DEVICE
    options = [*CLIENT_OPTIONS, ("grpc.ssl_target_name_override", name)]
    return grpc.aio.secure_channel(address, channel_credentials(credentials), options=options)


# What gRPC says of a handshake that failed, and what it means to a person.
_HANDSHAKES = {
    "certificate has expired": (
        "trust.expired",
        "its certificate has expired, or the clock here is wrong: set the clock, or adopt it again",
    ),
    "certificate is not yet valid": (
        "trust.clock",
        "its certificate is not valid yet, so the clock here is wrong, or was when it was adopted: set it",
    ),
    "Hostname Verification": ("trust.impostor", "what answers there is not that device"),
    "unable to get local issuer": ("trust.impostor", "what answers there is not of this fleet"),
    "self-signed certificate": ("trust.impostor", "what answers there is not of this fleet"),
    "WRONG_VERSION_NUMBER": ("trust.impostor", "what answers there proves nothing of itself"),
}


def refused_handshake(details: str, address: str) -> TrustError | None:
    """What gRPC's words for a failed handshake with `address` mean; None when they are of something else."""
    for sign, (code, meaning) in _HANDSHAKES.items():
        if sign in details:
            return TrustError(f"nothing was sent to {address}: {meaning}", code=code)
    return None


def _translate(error: Any, address: str, timeout: float, advice: str) -> EdvitError:
    status = grpc.StatusCode
    # Of a device, which may have been taken over.
    details = clean_text(error.details(), longest=LONGEST_REASON).strip().rstrip(".")
    match error.code():
        case status.DEADLINE_EXCEEDED:
            return late(address, timeout)
        case status.RESOURCE_EXHAUSTED if "Concurrent RPC limit" in details:
            return DeviceError(f"the device at {address} is busy: try again", code="device.busy")
        case status.PERMISSION_DENIED:
            return TrustError(details, code="trust.aggregator")
        case status.UNAVAILABLE | status.CANCELLED:
            if refused := refused_handshake(details, address):
                return refused
            if details.startswith("failed to connect") and details.endswith("Socket closed"):
                return LinkError(
                    f"the device at {address} broke off the handshake: it is of another fleet, its clock is "
                    "wrong, or too many connect to it at once: its log may say which",
                    code="link.handshake",
                )
            return LinkError(
                f"the device at {address} cannot be reached ({details or 'connection lost'}): {advice}"
            )
        case status.FAILED_PRECONDITION:
            code = clean_code(str(dict(error.trailing_metadata() or ()).get(CODE_KEY, "")), DeviceError.code)
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
        self._answering = Answering(handler.infer, MOST_CALLS)

    async def Hello(self, request: HelloRequest, context: Any) -> HelloReply:  # noqa: N802 (the proto's name)
        try:
            return await self._handler.hello(request)
        except EdvitError as error:
            raise await _refuse(context, error) from error

    def Install(  # noqa: N802
        self, requests: AsyncIterable[InstallRequest], context: Any
    ) -> AsyncGenerator[InstallReply, None]:
        return _progress(self._handler.install(requests), context)

    def Measure(  # noqa: N802
        self, requests: AsyncIterable[InstallRequest], context: Any
    ) -> AsyncGenerator[InstallReply, None]:
        return _progress(self._handler.measure(requests), context)

    async def Infer(self, requests: AsyncIterable[InferRequest], context: Any) -> None:  # noqa: N802
        await self._answering.converse(requests, context.write)


async def _progress(
    replies: AsyncGenerator[InstallReply, None], context: Any
) -> AsyncGenerator[InstallReply, None]:
    try:
        async with aclosing(replies):
            async for reply in replies:
                yield reply
    except EdvitError as error:
        raise await _refuse(context, error) from error


async def _refuse(context: Any, error: EdvitError) -> EdvitError:
    await context.abort(
        grpc.StatusCode.FAILED_PRECONDITION, error.message, trailing_metadata=((CODE_KEY, error.code),)
    )
    return error


Renew = Callable[[bytes], bytes]


class _MembershipServicer:
    """Hands a newer certificate to `renew`, which gives back the one that is shown from then on."""

    def __init__(self, renew: Renew) -> None:
        self._renew = renew

    async def Certificate(self, request: CertificateRequest, context: Any) -> CertificateReply:  # noqa: N802
        try:
            return CertificateReply(certificate=self._renew(request.certificate))
        except EdvitError as error:
            raise await _refuse(context, error) from error


Journal = Callable[[JournalRequest], AsyncGenerator[JournalLine, None]]


class _JournalServicer:
    """Hands out what `read` gives of the device's log."""

    def __init__(self, read: Journal) -> None:
        self._read = read

    async def Read(  # noqa: N802
        self, request: JournalRequest, context: Any
    ) -> AsyncGenerator[JournalLine, None]:
        del context
        async with aclosing(self._read(request)) as lines:
            async for line in lines:
                yield line


class Server:
    """A device's open port."""

    def __init__(self, server: Any, address: str, port: int) -> None:
        self._server = server
        self.address = address
        self.port = port

    async def stop(self, grace: float) -> None:
        """Take no new calls, and give those under way `grace` seconds."""
        await self._server.stop(grace)


class OnlyAggregators(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Every device of the fleet has a certificate, and none of them may tell another what to do."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Check who asks before the method is called."""
        handler = await continuation(details)
        if handler is None:
            return None
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                _checked(handler.unary_unary), handler.request_deserializer, handler.response_serializer
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                _checked_stream(handler.unary_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.stream_stream_rpc_method_handler(
            _checked_stream(handler.stream_stream), handler.request_deserializer, handler.response_serializer
        )


def _checked(behaviour: Any) -> Any:
    async def checked(request: Any, context: Any) -> Any:
        await _demand_aggregator(context)
        return await behaviour(request, context)

    return checked


def _checked_stream(behaviour: Any) -> Any:
    if inspect.iscoroutinefunction(behaviour):
        return _checked(behaviour)  # it reads and writes by the context

    async def checked(requests: Any, context: Any) -> AsyncGenerator[Any, None]:
        await _demand_aggregator(context)
        async with aclosing(behaviour(requests, context)) as replies:
            async for reply in replies:
                yield reply

    return checked


async def _demand_aggregator(context: Any) -> None:
    if AGGREGATOR.encode() not in context.auth_context().get("x509_subject_alternative_name", ()):
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED, "only the fleet's aggregator may ask this of a device"
        )


def add_device(
    server: Any, handler: Handler, renew: Renew | None = None, journal: Journal | None = None
) -> None:
    """Have a server, gRPC's own or the end of a tunnel, answer what a device answers.

    `renew` takes a newer certificate (DER; empty only asks) and returns the device's. `journal` gives lines
    of the device's own log.
    """
    edvit_pb2_grpc.add_DeviceServicer_to_server(_Servicer(handler), server)
    if renew is not None:
        edvit_pb2_grpc.add_MembershipServicer_to_server(_MembershipServicer(renew), server)
    if journal is not None:
        edvit_pb2_grpc.add_JournalServicer_to_server(_JournalServicer(journal), server)


async def serve_grpc(
    handler: Handler,
    address: str,
    port: int,
    credentials: Callable[[], Credentials],
    renew: Renew | None = None,
    journal: Journal | None = None,
) -> Server:
    """Serve `handler` on `address` (an IP address) and `port` (0: any free one).

    `credentials` are asked at each handshake, and only aggregators of the same fleet are served. The rest is
    as for `add_device`.

    Raises:
        LinkError: when the port is taken or the address is not this machine's.
    """
    server = grpc.aio.server(
        interceptors=[OnlyAggregators()], options=SERVER_OPTIONS, maximum_concurrent_rpcs=MOST_CALLS
    )
    add_device(server, handler, renew, journal)
    host = f"[{address}]" if ":" in address else address
    try:
        bound = server.add_secure_port(f"{host}:{port}", server_credentials(credentials))
    except RuntimeError as error:
        raise _port_taken(address, port) from error
    await server.start()
    return Server(server, address, bound)


def check_free(address: str, port: int) -> None:
    """Find out before a device is adopted whether it will be able to listen.

    Raises:
        LinkError: when the port is taken or the address is not this machine's.
    """
    try:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((address, port))
            trial.listen()
    except OSError as error:
        raise _port_taken(address, port) from error


def _port_taken(address: str, port: int) -> LinkError:
    return LinkError(
        f"cannot listen on {address} port {port}: choose another --port (0 takes any free one) "
        "or stop what is using it",
        code="link.port",
    )
