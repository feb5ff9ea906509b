"""Pictures over one stream: both sides of `Infer`, where answers may overtake each other."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterable, Awaitable, Callable
from functools import partial
from typing import Any

import grpc
import grpc.aio

from edvit_tf.errors import DeviceError, EdvitError, ProtocolError
from edvit_tf.rpc.edvit_pb2 import InferReply, InferRequest
from edvit_tf.rpc.text import LONGEST_REASON, clean_code, clean_text

# Turns what a broken stream says into an error of ours; None: it just ended.
Translate = Callable[[Any], EdvitError]
Answer = Callable[[InferRequest], Awaitable[InferReply]]
Write = Callable[[InferReply], Awaitable[None]]

BUSY = "device.busy"
_SECONDS_TO_END = 0.5

log = logging.getLogger(__name__)


class Conversation:
    """The asking side of a stream `call`; it takes bytes for requests, and gives messages for answers."""

    def __init__(self, call: Any, translate: Translate) -> None:
        self._call = call
        self._translate = translate
        self._turns = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[InferReply]] = {}
        self._ended: EdvitError | None = None
        self._outgoing: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())
        self._writing = asyncio.create_task(self._write())

    @property
    def ended(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._ended is not None

    async def ask(self, *parts: bytes, timeout: float) -> InferReply:
        """Send a request, serialised in parts and without a turn, and wait for its answer.

        A caller may give up, and does after `timeout` seconds: then the other side is told.

        Raises:
            EdvitError: the stream broke.
            TimeoutError: no answer came in time.
        """
        if self._ended is not None:
            raise self._ended
        turn = next(self._turns)
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[InferReply] = loop.create_future()
        self._waiting[turn] = waiting
        giving_up = loop.call_later(timeout, _give_up, waiting)
        self._outgoing.put_nowait((turn, b"".join((*parts, _turn(turn)))))
        try:
            return await waiting
        except (asyncio.CancelledError, TimeoutError):
            self._outgoing.put_nowait((0, InferRequest(turn=turn, withdrawn=True).SerializeToString()))
            raise
        finally:
            giving_up.cancel()
            del self._waiting[turn]

    async def close(self) -> None:
        """End the stream, and wait for its end: gRPC complains of a loop that closes before.

        The other side has a moment to go along; without that the stream is broken off.
        """
        self._writing.cancel()
        await asyncio.gather(self._writing, return_exceptions=True)
        if not self.ended and not self._call.done():
            with contextlib.suppress(
                TimeoutError, grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError
            ):
                async with asyncio.timeout(_SECONDS_TO_END):
                    await self._call.done_writing()
                    await asyncio.wait({self._reading})
                    await self._call.code()
        self._call.cancel()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _write(self) -> None:
        # One after the other, as gRPC wants it, and in no asker's task: the whole stream ends when somebody
        # gives up in the middle of a message. When it breaks, the reader learns why and tells everybody.
        with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            while True:
                turn, message = await self._outgoing.get()
                if turn == 0 or turn in self._waiting:
                    await self._call.write(message)

    async def _read(self) -> None:
        broken: Any = None
        try:
            while (reply := await self._call.read()) is not grpc.aio.EOF:
                waiting = self._waiting.get(reply.turn)
                if waiting is not None and not waiting.done():
                    waiting.set_result(reply)
        except grpc.aio.AioRpcError as error:
            broken = error
        finally:
            self._ended = self._translate(broken)
            self._writing.cancel()  # nobody would ever end it
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(self._ended)


class Answering:
    """The answering side of any number of streams.

    Args:
        answer: answers one request; what it raises becomes an answer that says so.
        most: how many may be under way over all streams; one more is told that the device is busy.
    """

    def __init__(self, answer: Answer, most: int) -> None:
        self._answer = answer
        self._most = most
        self._under_way = 0

    async def converse(self, requests: AsyncIterable[InferRequest], write: Write) -> None:
        """Answer each request as soon as its answer is there, until there are no more."""
        asked: dict[int, asyncio.Task[None]] = {}
        tasks: set[asyncio.Task[None]] = set()
        writing = asyncio.Lock()

        async def send(reply: InferReply) -> None:
            # One after the other, as gRPC wants it. When the stream breaks there are no more requests.
            with contextlib.suppress(grpc.aio.BaseError, asyncio.InvalidStateError):
                async with writing:
                    await write(reply)

        async def answer(request: InferRequest) -> None:
            reply = await self._reply(request)
            asked.pop(request.turn, None)  # an answer that is on its way cannot be withdrawn
            await send(reply)

        try:
            async for request in requests:
                if request.withdrawn:
                    if task := asked.pop(request.turn, None):
                        task.cancel()
                elif self._under_way >= self._most:
                    await send(
                        InferReply(turn=request.turn, refused="the device is busy: try again", code=BUSY)
                    )
                else:
                    self._under_way += 1
                    task = asked[request.turn] = asyncio.create_task(answer(request))
                    tasks.add(task)
                    # Not at the end of the task itself: one that is cancelled at once never begins.
                    task.add_done_callback(partial(self._over, tasks))
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for task in tasks:
                task.cancel()

    def _over(self, tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
        self._under_way -= 1
        tasks.discard(task)

    async def _reply(self, request: InferRequest) -> InferReply:
        try:
            reply = await self._answer(request)
        except EdvitError as error:
            reply = InferReply(refused=error.message, code=error.code)
        except Exception:
            log.exception("a picture was not answered")
            reply = InferReply(refused="the device failed: its log says how", code=DeviceError.code)
        reply.turn = request.turn
        return reply


def _give_up(waiting: asyncio.Future[InferReply]) -> None:
    if not waiting.done():
        waiting.set_exception(TimeoutError())


def _turn(turn: int) -> bytes:
    return InferRequest(turn=turn).SerializeToString()


def checked(reply: InferReply) -> InferReply:
    """An answer that is one.

    Raises:
        DeviceError: the device refused; `ProtocolError` when that is why.
    """
    if not reply.code and not reply.refused:
        return reply
    reason = clean_text(reply.refused, longest=LONGEST_REASON)
    if reply.code == ProtocolError.code:
        raise ProtocolError(reason)
    raise DeviceError(reason, code=clean_code(reply.code, DeviceError.code))
