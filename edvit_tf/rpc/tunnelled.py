"""The ends of a tunnel in gRPC's terms: what generated stubs take for a channel, and servicers for a server.

So a device that dialled in is asked by the same stubs, and answers by the same servicers, as one that
listens.
"""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from edvit_tf.errors import DeviceError
from edvit_tf.rpc.channel import CODE_KEY, ChannelLink
from edvit_tf.rpc.edvit_pb2 import HelloReply, HelloRequest, Outcome
from edvit_tf.rpc.tunnel import Exchange, Tunnel

Serialize = Callable[[Any], bytes]
Deserialize = Callable[[bytes], Any]

log = logging.getLogger(__name__)


class TunnelChannel:
    """The end that asks. Closing it ends the calls that were made by it, and not the tunnel."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._calls: set[TunnelCall] = set()
        self._closed = False

    def unary_unary(
        self,
        method: str,
        request_serializer: Serialize | None = None,
        response_deserializer: Deserialize | None = None,
        _registered_method: bool = False,
    ) -> Any:
        """One request, one reply."""
        multi = self.stream_stream(method, request_serializer, response_deserializer)

        async def call(request: Any, *, timeout: float | None = None) -> Any:
            made = multi(_only(request), timeout=timeout)
            try:
                reply = await made.read()
                if reply is grpc.aio.EOF:
                    raise _error(Outcome(status="INTERNAL", details="no reply came"))
                await made.read()  # that it is over
                return reply
            finally:
                made.cancel()

        return call

    def unary_stream(
        self,
        method: str,
        request_serializer: Serialize | None = None,
        response_deserializer: Deserialize | None = None,
        _registered_method: bool = False,
    ) -> Any:
        """One request, any number of replies."""
        multi = self.stream_stream(method, request_serializer, response_deserializer)
        return lambda request, *, timeout=None: multi(_only(request), timeout=timeout)

    def stream_stream(
        self,
        method: str,
        request_serializer: Serialize | None = None,
        response_deserializer: Deserialize | None = None,
        _registered_method: bool = False,
    ) -> Any:
        """Any number of requests and replies."""

        def call(requests: AsyncIterable[Any] | None = None, *, timeout: float | None = None) -> TunnelCall:
            if self._closed:
                raise grpc.aio.UsageError("the channel is closed")
            made = TunnelCall(
                self._tunnel.open(method),
                request_serializer or bytes,
                response_deserializer or bytes,
                requests,
                timeout,
            )
            self._calls = {one for one in self._calls if not one.done()} | {made}
            return made

        return call

    async def close(self) -> None:
        """End every call."""
        self._closed = True
        for call in self._calls:
            call.cancel()
        self._calls.clear()


class TunnelledLink(ChannelLink):
    """A link to a device at the other end of a tunnel, which proved its id when it opened the connection."""

    advice = "check that `edvit-tf device run --dial` runs there, and `edvit-tf serve --listen` here"

    def __init__(self, address: str, tunnel: Tunnel) -> None:
        super().__init__(address, TunnelChannel(tunnel))
        self._tunnel = tunnel

    async def hello(self, request: HelloRequest, *, timeout: float) -> HelloReply:
        """Say hello; raises DeviceError when the device says that it is another."""
        reply = await super().hello(request, timeout=timeout)
        if reply.id != self._tunnel.peer:
            raise DeviceError(
                f"the device at {self.address} says it is {reply.id[:12]!r}, and has proved that it is "
                f"{self._tunnel.peer[:12]}",
                code="device.identity",
            )
        return reply


class TunnelCall:
    """A call with streams in both directions, as gRPC shows one."""

    def __init__(
        self,
        exchange: Exchange,
        serialize: Serialize,
        deserialize: Deserialize,
        requests: AsyncIterable[Any] | None,
        timeout: float | None,
    ) -> None:
        self._exchange = exchange
        self._serialize = serialize
        self._deserialize = deserialize
        self._end = None if timeout is None else asyncio.get_running_loop().time() + timeout
        self._feeding = None if requests is None else asyncio.create_task(self._feed(requests))

    async def write(self, message: Any) -> None:
        """Send a request."""
        await self._exchange.send(self._serialize(message))

    async def done_writing(self) -> None:
        """Say that there are no more."""
        self._exchange.send_no_more()

    async def read(self) -> Any:
        """The next reply, or `grpc.aio.EOF`; raises AioRpcError when it went wrong."""
        try:
            async with asyncio.timeout_at(self._end):
                message = await self._exchange.receive()
        except TimeoutError:
            self.cancel()
            raise _error(Outcome(status="DEADLINE_EXCEEDED")) from None
        if message is not None:
            try:
                return self._deserialize(message)
            except DecodeError:
                self.cancel()
                raise _error(Outcome(status="INTERNAL", details="the reply cannot be read")) from None
        outcome = self._exchange.outcome or Outcome(status="OK")
        if outcome.status != "OK":
            raise _error(outcome)
        return grpc.aio.EOF

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (reply := await self.read()) is not grpc.aio.EOF:
            yield reply

    def cancel(self) -> None:
        """End it."""
        if self._feeding is not None:
            self._feeding.cancel()
        self._exchange.cancel()

    def done(self) -> bool:
        """Whether it is over."""
        return self._exchange.outcome is not None

    async def code(self) -> Any:
        """Its status, when all replies have been read."""
        return _status(self._exchange.outcome or Outcome(status="OK"))

    async def _feed(self, requests: AsyncIterable[Any]) -> None:
        try:
            with contextlib.suppress(asyncio.InvalidStateError):
                async for request in requests:
                    await self.write(request)
                await self.done_writing()
        except Exception:
            log.exception("the requests of a call ended")
            self._exchange.cancel()


class TunnelServer:
    """The end that answers: generated code adds servicers to it, and `answer` is for a `Tunnel`."""

    def __init__(self) -> None:
        self._methods: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The same handlers come registered."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Take the handlers of a service."""
        self._methods.update({f"/{service}/{name}": handler for name, handler in handlers.items()})

    async def answer(self, method: str, exchange: Exchange) -> Outcome:
        """Answer one call."""
        handler = self._methods.get(method)
        if handler is None:
            return Outcome(status="UNIMPLEMENTED", details=f"there is no {method[:100]!r} here")
        try:
            await self._run(handler, exchange)
        except _Aborted as aborted:
            return aborted.outcome
        except DecodeError:
            return Outcome(status="INTERNAL", details="the request cannot be read")
        return Outcome(status="OK")

    async def _run(self, handler: Any, exchange: Exchange) -> None:
        requests = _requests(exchange, handler.request_deserializer)
        given = requests if handler.request_streaming else await anext(requests)
        context = _Context(exchange, handler.response_serializer)
        if not handler.response_streaming:
            await context.write(await handler.unary_unary(given, context))
            return
        behaviour = handler.stream_stream or handler.unary_stream
        if inspect.iscoroutinefunction(behaviour):
            await behaviour(given, context)  # it writes by the context
            return
        async with aclosing(behaviour(given, context)) as replies:
            async for reply in replies:
                await context.write(reply)


class _Context:
    """What our servicers use of gRPC's context."""

    def __init__(self, exchange: Exchange, serialize: Serialize) -> None:
        self._exchange = exchange
        self._serialize = serialize

    async def write(self, reply: Any) -> None:
        """Send a reply."""
        await self._exchange.send(self._serialize(reply))

    async def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> None:
        """End the call with an error."""
        raise _Aborted(
            Outcome(
                status=code.name, details=details, code=str(dict(trailing_metadata or ()).get(CODE_KEY, ""))
            )
        )


class _Aborted(Exception):
    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.details)
        self.outcome = outcome


async def _only(request: Any) -> AsyncIterator[Any]:
    yield request


async def _requests(exchange: Exchange, deserialize: Deserialize) -> AsyncIterator[Any]:
    while (message := await exchange.receive()) is not None:
        yield deserialize(message)


def _status(outcome: Outcome) -> Any:
    try:
        return grpc.StatusCode[outcome.status]
    except KeyError:
        return grpc.StatusCode.UNKNOWN


def _error(outcome: Outcome) -> grpc.aio.AioRpcError:
    trailing = ((CODE_KEY, outcome.code),) if outcome.code else ()
    return grpc.aio.AioRpcError(
        _status(outcome), grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details=outcome.details
    )
