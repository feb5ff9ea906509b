"""Calls over one stream of frames, whichever side opened it: one end asks, and the other answers.

A device that cannot listen opens the connection and is asked over it. All calls share the stream, so none may
fill it: a side has at most `WINDOW` messages of a call on their way that the other has not taken.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, Self

import grpc
import grpc.aio

from edvit_tf.errors import ProtocolError
from edvit_tf.rpc.edvit_pb2 import Frame, Outcome

WINDOW = 16
# Calls that one end answers at once, and messages that wait to be written, behind which a heartbeat may be.
MOST_CALLS = 64
MOST_WAITING = 2
# Small frames that wait to be written, such as that nobody waits for a call any more.
MOST_FRAMES = 1000
BUSY = "Concurrent RPC limit exceeded"
# A frame has to fit into a message of gRPC.
MESSAGE_BYTES = (8 << 20) - 1024

log = logging.getLogger(__name__)


class Stream(Protocol):
    """A stream of gRPC, on either side of it."""

    async def read(self) -> Any:
        """The next frame, or `grpc.aio.EOF`."""
        ...

    async def write(self, frame: Frame) -> None:
        """Send a frame, when there is room for it."""
        ...


class ServerStream:
    """The server's side of a stream, by gRPC's context."""

    def __init__(self, context: Any) -> None:
        self.read = context.read
        self.write = context.write


class Exchange:
    """One call as one end sees it: serialised messages go and come, until there is an `outcome`."""

    def __init__(self, tunnel: "Tunnel", number: int) -> None:
        self.outcome: Outcome | None = None
        self._tunnel = tunnel
        self._number = number
        self._incoming: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._here = 0
        self._taken = 0
        self._under_way = 0
        self._moved = asyncio.Event()

    async def send(self, message: bytes) -> None:
        """Send a message, as soon as the other end has taken enough of those before.

        Raises:
            asyncio.InvalidStateError: the call is over.
        """
        while self._under_way >= WINDOW and self.outcome is None:
            self._moved.clear()
            await self._moved.wait()
        if len(message) > MESSAGE_BYTES:
            self.cancel(
                Outcome(status="RESOURCE_EXHAUSTED", details=f"it is larger than max {MESSAGE_BYTES}")
            )
        if self.outcome is not None:
            raise asyncio.InvalidStateError("the call is over")
        self._under_way += 1
        await self._tunnel.send(Frame(call=self._number, message=message))

    def send_no_more(self) -> None:
        """Tell the other end that it has all messages."""
        if self.outcome is None:
            self._tunnel.put(Frame(call=self._number, last=True))

    async def receive(self) -> bytes | None:
        """The next message, None when no more will come."""
        message = await self._incoming.get()
        if message is None:
            self._incoming.put_nowait(None)
            return None
        self._here -= 1
        self._taken += 1
        if self._taken >= WINDOW // 2 and self.outcome is None:
            self._tunnel.put(Frame(call=self._number, taken=self._taken))
            self._taken = 0
        return message

    def cancel(self, outcome: Outcome | None = None) -> None:
        """Wait for it no longer, and tell the other end."""
        if self.outcome is None:
            self._tunnel.forget(self._number)
            self._tunnel.put(Frame(call=self._number, cancelled=True))
            self.end(outcome or Outcome(status="CANCELLED"))

    def end(self, outcome: Outcome) -> None:
        """It is over; what came before can still be received."""
        if self.outcome is None:
            self.outcome = outcome
            self._moved.set()
            self.arrived_all()

    def arrived(self, message: bytes) -> None:
        """A message has come; raises ProtocolError when it is one more than may be on its way."""
        if self._here >= WINDOW:
            raise ProtocolError("more messages came at once than this side has room for")
        self._here += 1
        self._incoming.put_nowait(message)

    def arrived_all(self) -> None:
        """No more messages come."""
        self._incoming.put_nowait(None)

    def taken(self, number: int) -> None:
        """The other end has taken so many; raises ProtocolError when it cannot have."""
        if number > self._under_way:
            raise ProtocolError("the other side says that it took more than was sent")
        self._under_way -= number
        self._moved.set()


class _Nothing:
    async def read(self) -> Any:
        return grpc.aio.EOF

    async def write(self, frame: Frame) -> None:
        del frame


Answer = Callable[[str, Exchange], Awaitable[Outcome]]


class Tunnel:
    """One end of a stream; `run` works it until it ends.

    The end that was given `answer` (from a method's name and its call to what became of it) is the one that
    is asked; the other one asks by `open`. `peer` is the id that the device at the other end has proved.
    """

    def __init__(self, stream: Stream, answer: Answer | None = None, *, peer: str = "") -> None:
        self.peer = peer
        self._stream = stream
        self._answer = answer
        self._numbers = itertools.count(1)
        self._calls: dict[int, Exchange] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._outgoing: asyncio.Queue[Frame] = asyncio.Queue()
        self._places = asyncio.Semaphore(MOST_WAITING)
        self._reading: asyncio.Task[None] | None = None
        self._ended: Outcome | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._ended is not None

    @classmethod
    def over(cls, reason: str) -> Self:
        """A tunnel that has ended: all that it is asked fails for this reason."""
        tunnel = cls(_Nothing())
        tunnel._ended = Outcome(status="UNAVAILABLE", details=reason)
        return tunnel

    def open(self, method: str) -> Exchange:
        """Begin a call, such as "/edvit.v1.Device/Hello"."""
        number = next(self._numbers)
        exchange = Exchange(self, number)
        if self._ended is not None:
            exchange.end(self._ended)
        else:
            self._calls[number] = exchange
            self.put(Frame(call=number, method=method))
        return exchange

    async def run(self) -> None:
        """Work the stream until it ends or breaks; every call that is under way ends with it.

        Raises:
            ProtocolError: the other side sends what it may not.
            grpc.aio.AioRpcError: the stream broke.
        """
        writing = asyncio.create_task(self._write())
        self._reading = asyncio.create_task(self._read())
        ended = Outcome(status="UNAVAILABLE", details="the other side hung up")
        try:
            await asyncio.wait({self._reading})
            if not self._reading.cancelled():
                self._reading.result()
        except grpc.aio.AioRpcError as error:
            ended = Outcome(status=error.code().name, details=error.details() or "")
            raise
        finally:
            self._ended = ended
            tasks = [writing, self._reading, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            for exchange in list(self._calls.values()):
                exchange.end(ended)
            self._calls.clear()
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        """Have `run` return."""
        if self._reading is not None:
            self._reading.cancel()

    async def send(self, frame: Frame) -> None:
        """Have a frame with a message written: it waits while others do."""
        await self._places.acquire()
        self.put(frame)

    def put(self, frame: Frame) -> None:
        """Have a small frame written; a side that reads none of them for long is hung up on."""
        if self._ended is not None:
            return
        if self._outgoing.qsize() >= MOST_FRAMES:
            self.close()
        else:
            self._outgoing.put_nowait(frame)

    def forget(self, number: int) -> None:
        """What comes for this call is late from now on."""
        self._calls.pop(number, None)

    async def _write(self) -> None:
        # One after the other, and in no caller's task: the whole stream ends when a write is given up.
        with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            while True:
                frame = await self._outgoing.get()
                await self._stream.write(frame)
                if frame.WhichOneof("part") == "message":
                    self._places.release()

    async def _read(self) -> None:
        while (frame := await self._stream.read()) is not grpc.aio.EOF:
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        part = frame.WhichOneof("part")
        if part == "method":
            self._begin(frame.call, frame.method)
            return
        exchange = self._calls.get(frame.call)
        if exchange is None:
            return  # late
        match part:
            case "message":
                exchange.arrived(frame.message)
            case "last":
                exchange.arrived_all()
            case "taken":
                exchange.taken(frame.taken)
            case "outcome" if self._answer is None:
                self.forget(frame.call)
                exchange.end(frame.outcome)
            case "cancelled" if frame.call in self._tasks:
                self._tasks[frame.call].cancel()

    def _begin(self, number: int, method: str) -> None:
        if self._answer is None or number in self._calls:
            raise ProtocolError("the other side begins a call that it may not")
        if len(self._calls) >= MOST_CALLS:
            busy = Outcome(status="RESOURCE_EXHAUSTED", details=BUSY)
            self.put(Frame(call=number, outcome=busy))
            return
        exchange = self._calls[number] = Exchange(self, number)
        task = asyncio.create_task(self._one(self._answer, number, method, exchange))
        self._tasks[number] = task

        # Not at the end of the task itself: one that is cancelled at once never begins.
        def over(_: "asyncio.Task[None]") -> None:
            self.forget(number)
            del self._tasks[number]

        task.add_done_callback(over)

    async def _one(self, answer: Answer, number: int, method: str, exchange: Exchange) -> None:
        try:
            outcome = await answer(method, exchange)
        except Exception:
            log.exception("%s was not answered", method)
            outcome = Outcome(status="UNKNOWN", details="it failed inside: its log says how")
        self.put(Frame(call=number, outcome=outcome))
