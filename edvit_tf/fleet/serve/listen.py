"""The HTTP port: uvicorn, with bounds on what may be done before there is a request."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from edvit_tf.errors import LinkError
from edvit_tf.rpc.address import Address

MOST_CONNECTIONS = 256
# For a request's head, also for the next one on a connection that is kept.
HEAD_SECONDS = 10.0
KEEP_SECONDS = 30
BACKLOG = 128


class _BoundedProtocol(H11Protocol):
    """Closes a connection that is one too many, or whose request does not begin within `HEAD_SECONDS`."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._await_head()
        else:
            self._head_came()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _head_came(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


class _Server(uvicorn.Server):
    """Signals are the aggregator's to handle."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpPort:
    """An open HTTP port; `address` says which, also when any free one was asked for."""

    def __init__(self, application: ASGIApp, address: Address) -> None:
        self._socket = _listening(address)
        self.address = Address(address.host, self._socket.getsockname()[1])
        config = uvicorn.Config(
            application,
            http=_BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_SECONDS,
            timeout_graceful_shutdown=1,
        )
        # What went wrong before there is a request is the sender's own doing.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to answer; connections wait in the socket since it was made."""
        self._task = asyncio.create_task(self._server.serve([self._socket]))

    async def close(self) -> None:
        """Take no new connections, and end the others when they have their answers."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()


def _listening(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise LinkError(
            f"cannot listen on {address}: choose another --http (port 0 takes any free one) or stop what is "
            "using it",
            code="link.port",
        ) from error
