"""The pairing port: gRPC in the clear, because nothing on it is secret and the proofs cover all of it."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio

from edvit_tf.errors import LinkError
from edvit_tf.rpc import channel as _channel
from edvit_tf.rpc import edvit_pb2_grpc
from edvit_tf.rpc.edvit_pb2 import PairReply, PairRequest

MESSAGE_BYTES = 64 * 1024
PAIRING_SECONDS = 30.0
MOST_CONNECTIONS = 32
MOST_CALLS = 8

Pair = Callable[[AsyncIterable[PairRequest]], AsyncGenerator[PairReply, None]]

_LIMITS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
]
_SERVER_OPTIONS = [
    *_LIMITS,
    ("grpc.so_reuseport", 0),
    ("grpc.max_allowed_incoming_connections", MOST_CONNECTIONS),
    ("grpc.server_handshake_timeout_ms", 1000 * _channel.HANDSHAKE_SECONDS),
    ("grpc.max_concurrent_streams", MOST_CALLS),
    # Nobody needs longer, and a stranger gets no longer.
    ("grpc.max_connection_age_ms", int(1000 * PAIRING_SECONDS)),
    ("grpc.max_connection_age_grace_ms", 1000),
    ("grpc.max_connection_idle_ms", 10_000),
]


class _Servicer:
    def __init__(self, pair: Pair) -> None:
        self._pair = pair

    async def Pair(  # noqa: N802 (the proto's name)
        self, requests: AsyncIterable[PairRequest], context: Any
    ) -> AsyncGenerator[PairReply, None]:
        del context
        async with aclosing(self._pair(requests)) as replies:
            async for reply in replies:
                yield reply


async def serve_pairing(pair: Pair, address: str, port: int = 0) -> _channel.Server:
    """Serve conversations on `address` (an IP address) and `port` (0: any free one).

    Raises:
        LinkError: when the port is taken or the address is not this machine's.
    """
    server = grpc.aio.server(options=_SERVER_OPTIONS, maximum_concurrent_rpcs=MOST_CALLS)
    edvit_pb2_grpc.add_PairingServicer_to_server(_Servicer(pair), server)
    host = f"[{address}]" if ":" in address else address
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise LinkError(f"cannot listen on {address} for pairing", code="link.port") from error
    await server.start()
    return _channel.Server(server, address, bound)


class PairingLink:
    """A conversation with the device whose pairing port is at `address` ("host:port")."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def pair(self, requests: AsyncIterator[PairRequest]) -> AsyncGenerator[PairReply, None]:
        """Send `requests` and yield the device's replies.

        Raises:
            LinkError: it cannot be reached, or the conversation broke.
        """
        options = [*_LIMITS, ("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(self.address, options=options) as channel:
            call = edvit_pb2_grpc.PairingStub(channel).Pair(requests, timeout=PAIRING_SECONDS)
            try:
                async for reply in call:
                    yield reply
            except grpc.aio.AioRpcError as error:
                raise LinkError(
                    f"pairing with {self.address} broke off ({(error.details() or '').rstrip('.')}): "
                    "check that the device still waits to be paired, then try again"
                ) from error
            finally:
                call.cancel()
