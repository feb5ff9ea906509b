"""gRPC between the owner's programs and an aggregator that runs: mutual TLS with the fleet's keys.

The aggregator shows the certificate that it shows to devices, and serves whoever has such a one.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from edvit_tf.errors import BusyError, DataError, DeadlineError, EdvitError, LinkError, UsageError
from edvit_tf.rpc import edvit_pb2_grpc
from edvit_tf.rpc.address import Address
from edvit_tf.rpc.certificates import AGGREGATOR
from edvit_tf.rpc.channel import CLIENT_OPTIONS, CODE_KEY, SERVER_OPTIONS, OnlyAggregators, Server
from edvit_tf.rpc.edvit_pb2 import ClassifyReply, ClassifyRequest
from edvit_tf.rpc.relay import TunnelTo, add_relay
from edvit_tf.rpc.tls import Credentials, channel_credentials, server_credentials

Classify = Callable[[ClassifyRequest], Awaitable[ClassifyReply]]

# Of the errors that `Classify` raises, and the other way round.
_STATUS: tuple[tuple[type[EdvitError], str], ...] = (
    (BusyError, "RESOURCE_EXHAUSTED"),
    (DeadlineError, "DEADLINE_EXCEEDED"),
    (UsageError, "INVALID_ARGUMENT"),
    (DataError, "INVALID_ARGUMENT"),
    (EdvitError, "FAILED_PRECONDITION"),
)


class _Servicer:
    def __init__(self, classify: Classify) -> None:
        self._classify = classify

    async def Classify(self, request: ClassifyRequest, context: Any) -> ClassifyReply:  # noqa: N802
        try:
            return await self._classify(request)
        except EdvitError as error:
            name = next(status for kind, status in _STATUS if isinstance(error, kind))
            metadata = ((CODE_KEY, error.code),)
            await context.abort(grpc.StatusCode[name], error.message, trailing_metadata=metadata)
            raise


async def serve_aggregator(
    classify: Classify,
    address: Address,
    credentials: Callable[[], Credentials],
    tunnel_to: TunnelTo | None = None,
) -> Server:
    """Serve `classify`, which raises `EdvitError`, to whoever has an aggregator's certificate.

    With `tunnel_to` they reach the devices that have dialled in, too.

    Raises:
        LinkError: `link.port`: the port is taken or the address is not this machine's.
    """
    server = grpc.aio.server(interceptors=[OnlyAggregators()], options=SERVER_OPTIONS)
    edvit_pb2_grpc.add_AggregatorServicer_to_server(_Servicer(classify), server)
    if tunnel_to is not None:
        add_relay(server, tunnel_to)
    try:
        port = server.add_secure_port(str(address), server_credentials(credentials))
    except RuntimeError as error:
        raise LinkError(
            f"cannot listen on {address}: choose another --grpc (port 0 takes any free one) or stop what is "
            "using it",
            code="link.port",
        ) from error
    await server.start()
    return Server(server, address.host, port)


class AggregatorLink:
    """A link to the aggregator that runs at `address` ("host:port")."""

    def __init__(self, address: str, credentials: Credentials) -> None:
        self.address = address
        options = [*CLIENT_OPTIONS, ("grpc.ssl_target_name_override", AGGREGATOR)]
        self._channel = grpc.aio.secure_channel(address, channel_credentials(credentials), options=options)
        self._stub = edvit_pb2_grpc.AggregatorStub(self._channel)

    async def classify(self, picture: bytes, *, seconds: float | None, timeout: float) -> ClassifyReply:
        """Have a picture (the bytes of its file) answered within `seconds`, by default the aggregator's own.

        Raises:
            BusyError: it has too much to do.
            DataError: the bytes are no picture.
            DeadlineError: no sub-model answered in time, or the aggregator itself did not within `timeout`.
            LinkError: it cannot be reached.
        """
        request = ClassifyRequest(picture=picture, milliseconds=round(1000 * (seconds or 0)))
        try:
            reply: ClassifyReply = await self._stub.Classify(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise _translated(error, self.address) from error
        return reply

    async def close(self) -> None:
        """Let go of the connection."""
        await self._channel.close()


def _translated(error: Any, address: str) -> EdvitError:
    code = dict(error.trailing_metadata() or ()).get(CODE_KEY)
    details = (error.details() or "").strip()
    if code is not None:
        kinds = {status: kind for kind, status in reversed(_STATUS)} | {"INVALID_ARGUMENT": DataError}
        return kinds.get(error.code().name, EdvitError)(details, code=code)
    match error.code():
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return BusyError(f"the aggregator at {address} does not take it: {details}")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineError(f"the aggregator at {address} did not answer in time")
        case _:
            return LinkError(f"the aggregator at {address} cannot be reached ({details})")
