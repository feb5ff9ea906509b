"""Connections that devices open: the port where an aggregator waits for them, and a device's way there.

Both sides prove themselves as on a device's own port, with the same certificates. What comes of it is a
`Tunnel`, over which the aggregator asks and the device answers.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio

from edvit_tf.errors import LinkError, ProtocolError, TrustError
from edvit_tf.rpc import edvit_pb2_grpc
from edvit_tf.rpc.address import Address
from edvit_tf.rpc.certificates import AGGREGATOR, device_of
from edvit_tf.rpc.channel import CLIENT_OPTIONS, SERVER_OPTIONS, Server, refused_handshake
from edvit_tf.rpc.tls import Credentials, channel_credentials, server_credentials
from edvit_tf.rpc.tunnel import Answer, ServerStream, Tunnel

DIAL_SERVICE = "_edvit-dial._tcp.local."
# Devices that have dialled in, and strangers in their handshake.
MOST_CONNECTIONS = 512
# Who has a certificate and says nothing has no use for a connection.
IDLE_SECONDS = 10
# Whoever is dialled has so long to prove itself: others may be announced, too.
CONNECT_SECONDS = 5.0

# A device has opened a tunnel from an address ("host:port"); it lasts as long as the context. Raises
# TrustError when the device is not welcome.
Welcome = Callable[[str, Tunnel], AbstractContextManager[None]]

log = logging.getLogger(__name__)

_SERVER_OPTIONS = [
    *SERVER_OPTIONS,
    # Of two settings with one name the later counts.
    ("grpc.max_allowed_incoming_connections", MOST_CONNECTIONS),
    ("grpc.max_concurrent_streams", 1),
    ("grpc.max_connection_idle_ms", 1000 * IDLE_SECONDS),
]


class _InwardServicer:
    def __init__(self, welcome: Welcome) -> None:
        self._welcome = welcome

    async def Serve(self, requests: Any, context: Any) -> None:  # noqa: N802 (the proto's name)
        del requests
        names = context.auth_context().get("x509_subject_alternative_name", ())
        device = device_of([name.decode(errors="replace") for name in names])
        if not device:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "only a device of the fleet may dial in")
        tunnel = Tunnel(ServerStream(context), peer=device)
        try:
            with self._welcome(peer_address(context), tunnel):
                await tunnel.run()
        except TrustError as error:
            log.warning("%s from %s was not let in: %s", device[:12], peer_address(context), error.message)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, error.message)
        except ProtocolError as error:
            log.warning("%s was hung up on: %s", device[:12], error.message)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        except grpc.aio.AioRpcError:
            pass  # the stream broke


async def serve_inward(welcome: Welcome, address: Address, credentials: Callable[[], Credentials]) -> Server:
    """Wait at `address` for devices that dial in.

    Raises:
        LinkError: `link.port`: the port is taken or the address is not this machine's.
    """
    server = grpc.aio.server(options=_SERVER_OPTIONS)
    edvit_pb2_grpc.add_InwardServicer_to_server(_InwardServicer(welcome), server)
    try:
        port = server.add_secure_port(str(address), server_credentials(credentials))
    except RuntimeError as error:
        raise LinkError(
            f"cannot listen on {address}: choose another --listen (port 0 takes any free one) or stop what "
            "is using it",
            code="link.port",
        ) from error
    await server.start()
    return Server(server, address.host, port)


async def dial(
    address: str, credentials: Credentials, answer: Answer, on_connected: Callable[[], None]
) -> None:
    """Open a connection to the aggregator at `address` ("host:port") and answer over it until it ends.

    Raises:
        TrustError: what is there is not the fleet's aggregator, or does not take this device.
        LinkError: it cannot be reached, or the connection broke.
    """
    options = [*CLIENT_OPTIONS, ("grpc.ssl_target_name_override", AGGREGATOR)]
    async with grpc.aio.secure_channel(address, channel_credentials(credentials), options=options) as channel:
        call = edvit_pb2_grpc.InwardStub(channel).Serve()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await call.wait_for_connection()
            on_connected()
            await Tunnel(call, answer).run()
        except grpc.aio.AioRpcError as error:
            raise _translated(error, address) from error
        except TimeoutError:
            raise LinkError(
                f"what is at {address} did not prove itself within {CONNECT_SECONDS:.0f} s"
            ) from None
        finally:
            call.cancel()


def peer_address(context: Any) -> str:
    """Who is at the other end of a call, "host:port"."""
    # In gRPC's words ipv4:127.0.0.1:5000, or ipv6:%5B::1%5D:5000.
    return unquote(str(context.peer()).partition(":")[2])


def _translated(error: Any, address: str) -> LinkError | TrustError:
    details = (error.details() or "").strip().rstrip(".")
    if refused := refused_handshake(details, address):
        return refused
    if error.code() is grpc.StatusCode.PERMISSION_DENIED:
        return TrustError(f"the aggregator at {address} does not take this device: {details}")
    return LinkError(
        f"the aggregator at {address} cannot be reached ({details or 'connection lost'}): check that "
        "`edvit-tf serve --listen` runs there"
    )
