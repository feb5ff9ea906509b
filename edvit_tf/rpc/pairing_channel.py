"""The pairing ports: gRPC in the clear, because nothing on them is secret and the proofs cover all of it.

A device's own, and an aggregator's for devices that cannot be called.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio

from edvit_tf.errors import EdvitError, LinkError, TrustError
from edvit_tf.rpc import channel as _channel
from edvit_tf.rpc import edvit_pb2_grpc
from edvit_tf.rpc.address import Address
from edvit_tf.rpc.edvit_pb2 import PairReply, PairRequest
from edvit_tf.rpc.inward import peer_address
from edvit_tf.rpc.text import LONGEST_REASON, clean_text

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


# Holds the aggregator's side of a conversation, given what opens it and the address of the other end.
Join = Callable[[Pair, str], Awaitable[None]]
# Where devices dial in to join: the port after the one where members do.
JOINING_OFFSET = 1


class _JoiningServicer:
    def __init__(self, join: Join) -> None:
        self._join = join

    async def Join(self, requests: AsyncIterable[PairReply], context: Any) -> None:  # noqa: N802
        async def write(sending: AsyncIterable[PairRequest]) -> None:
            async for request in sending:
                await context.write(request)

        async def pair(sending: AsyncIterable[PairRequest]) -> AsyncGenerator[PairReply, None]:
            writing = asyncio.create_task(write(sending))
            try:
                while (reply := await context.read()) is not grpc.aio.EOF:
                    yield reply
            finally:
                writing.cancel()

        del requests
        try:
            await self._join(pair, peer_address(context))
        except EdvitError as error:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, error.message)


async def serve_joining(join: Join, address: Address) -> _channel.Server:
    """Have devices that dial in join at the port after that of `address`.

    Raises:
        LinkError: `link.port`: that port is taken.
    """
    server = grpc.aio.server(options=_SERVER_OPTIONS, maximum_concurrent_rpcs=MOST_CALLS)
    edvit_pb2_grpc.add_JoiningServicer_to_server(_JoiningServicer(join), server)
    where = replace(address, port=address.port + JOINING_OFFSET)
    try:
        bound = server.add_insecure_port(str(where))
    except RuntimeError as error:
        raise LinkError(
            f"devices cannot join at {where}: stop what is using it, or choose another --listen",
            code="link.port",
        ) from error
    await server.start()
    return _channel.Server(server, address.host, bound)


async def join_at(address: str, pair: Pair) -> None:
    """Hold the device's side of a conversation (`pair`) with the aggregator that members dial at `address`.

    Raises:
        TrustError: `trust.refused`: this side refused.
        LinkError: it cannot be reached, expects nobody, or broke off the conversation.
    """
    host, _, port = address.rpartition(":")
    options = [*_LIMITS, ("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    where = f"{host}:{int(port) + JOINING_OFFSET}"
    async with grpc.aio.insecure_channel(where, options=options) as channel:
        call = edvit_pb2_grpc.JoiningStub(channel).Join(timeout=PAIRING_SECONDS)

        async def requests() -> AsyncIterator[PairRequest]:
            while (request := await call.read()) is not grpc.aio.EOF:
                yield request

        try:
            async with aclosing(pair(requests())) as replies:
                async for reply in replies:
                    await call.write(reply)
                    if reply.refused:
                        raise TrustError(f"not joined at {where}: {reply.refused}", code="trust.refused")
            await call.done_writing()
            await call.read()  # until the other side has it
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            said = "" if isinstance(error, asyncio.InvalidStateError) else _said(error)
            raise LinkError(
                f"joining at {where} broke off ({said}): check that an aggregator listens there, and that "
                "the token is still good"
            ) from error
        finally:
            call.cancel()


def _said(error: Any) -> str:
    """Why a call ended, in the words of whoever is there, which may be anybody."""
    return clean_text(error.details(), longest=LONGEST_REASON).strip().rstrip(".")


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
                    f"pairing with {self.address} broke off ({_said(error)}): "
                    "check that the device still waits to be paired, then try again"
                ) from error
            finally:
                call.cancel()
