"""Through an aggregator that runs to a device that has dialled in there, for the owner's other programs.

`edvit-tf fleet deploy` and the like are processes of their own, and such a device has one connection.
"""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import grpc.aio

from edvit_tf.errors import ProtocolError
from edvit_tf.rpc import edvit_pb2_grpc
from edvit_tf.rpc.certificates import AGGREGATOR
from edvit_tf.rpc.channel import CLIENT_OPTIONS
from edvit_tf.rpc.edvit_pb2 import Outcome
from edvit_tf.rpc.tls import Credentials, channel_credentials
from edvit_tf.rpc.tunnel import Exchange, ServerStream, Tunnel
from edvit_tf.rpc.tunnelled import TunnelledLink

DEVICE_KEY = "edvit-device"

# The tunnel to the device with this id or at this address; one that has ended when it is not there.
TunnelTo = Callable[[str], Tunnel]


class _RelayServicer:
    def __init__(self, tunnel_to: TunnelTo) -> None:
        self._tunnel_to = tunnel_to

    async def Open(self, requests: Any, context: Any) -> None:  # noqa: N802 (the proto's name)
        del requests
        device = dict(context.invocation_metadata() or ()).get(DEVICE_KEY, "")
        onward = self._tunnel_to(str(device))
        await context.send_initial_metadata(((DEVICE_KEY, onward.peer),))
        try:
            await Tunnel(ServerStream(context), partial(_relayed, onward)).run()
        except ProtocolError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        except grpc.aio.AioRpcError:
            pass  # the stream broke


def add_relay(server: Any, tunnel_to: TunnelTo) -> None:
    """Have an aggregator's server for the owner's programs relay to the devices that have dialled in."""
    edvit_pb2_grpc.add_RelayServicer_to_server(_RelayServicer(tunnel_to), server)


async def _relayed(onward: Tunnel, method: str, asked: Exchange) -> Outcome:
    """Pass a call on, and what comes back."""
    asking = onward.open(method)
    passing = asyncio.create_task(_pass_on(asked, asking))
    try:
        while (message := await asking.receive()) is not None:
            await asked.send(message)
        return asking.outcome or Outcome(status="OK")
    finally:
        passing.cancel()
        asking.cancel()


async def _pass_on(asked: Exchange, asking: Exchange) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):
        while (message := await asked.receive()) is not None:
            await asking.send(message)
        asking.send_no_more()


class RelayedLink(TunnelledLink):
    """A link to a device through the aggregator that runs at `relay` ("host:port").

    `device` is its id, or the address under which the aggregator knows it.
    """

    def __init__(self, address: str, relay: str, credentials: Credentials, device: str) -> None:
        options = [*CLIENT_OPTIONS, ("grpc.ssl_target_name_override", AGGREGATOR)]
        self._outer = grpc.aio.secure_channel(relay, channel_credentials(credentials), options=options)
        self._call = edvit_pb2_grpc.RelayStub(self._outer).Open(metadata=((DEVICE_KEY, device),))
        tunnel = Tunnel(self._call)
        self._running = asyncio.create_task(_run(tunnel, self._call))
        super().__init__(address, tunnel)

    async def close(self) -> None:
        """Let go of the device, and of the aggregator."""
        await super().close()
        self._call.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self._outer.close()


async def _run(tunnel: Tunnel, call: Any) -> None:
    # Why it ends, every call is told that is under way.
    with contextlib.suppress(grpc.aio.AioRpcError):
        tunnel.peer = str(dict(await call.initial_metadata()).get(DEVICE_KEY, ""))
    with contextlib.suppress(grpc.aio.AioRpcError, ProtocolError):
        await tunnel.run()
