"""One picture to every device at once, and what came back by the deadline."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edvit_tf.bundle.manifest import Manifest
from edvit_tf.errors import DeadlineError, EdvitError, LinkError
from edvit_tf.fleet.answer import DeviceReply, features_of
from edvit_tf.fleet.wire import Encoded
from edvit_tf.rpc.codecs import EXACT, Coding
from edvit_tf.rpc.edvit_pb2 import InferReply, InferRequest
from edvit_tf.rpc.link import Link, late

DEFAULT_DEADLINE = 2.0


@dataclass(frozen=True, slots=True)
class Route:
    """A device that is up, the sub-models to ask it for, and how it is best sent the picture."""

    device: str
    name: str
    link: Link
    submodels: tuple[str, ...]
    coding: Coding = EXACT


OnReply = Callable[[Route, DeviceReply], None]


class Elsewhere(Protocol):
    """Whom to ask again, and when; each method is asked once a route at most."""

    def delay(self, route: Route, left: float) -> float | None:
        """After how many seconds without an answer `hedge` is asked, of `left` that remain; None: never."""
        ...

    def hedge(self, route: Route) -> Sequence[Route]:
        """Whom to ask beside a device that is slow."""
        ...

    async def retry(self, route: Route) -> Sequence[Route]:
        """Whom to ask instead of a device whose connection broke."""
        ...


async def dispatch(
    manifest: Manifest,
    routes: Sequence[Route],
    picture: Encoded,
    *,
    digest: bytes = b"",
    deadline: float = DEFAULT_DEADLINE,
    on_reply: OnReply = lambda *_: None,
    elsewhere: Elsewhere | None = None,
) -> list[DeviceReply]:
    """Ask every route and return a reply for each that was asked, within `deadline` seconds.

    With `digest`, the SHA-256 of the manifest file, a bundle that only shares its version with it is refused.

    A device that fails, is late or answers garbage has a reply with an error and no features. Late answers
    are dropped. `on_reply` is told of every reply. `elsewhere` may have a route asked again, within the same
    deadline; of two that answer for a sub-model the first counts, and the other is not waited for.
    """
    question = secrets.token_hex(8)
    end = time.monotonic() + deadline

    async def ask(route: Route) -> DeviceReply:
        return await _ask(manifest, route, _request(manifest, route, question, digest), picture, end)

    def failed(route: Route, error: EdvitError) -> DeviceReply:
        return _failed(route, error, coding=route.coding, sent=picture.size(route.coding))

    asked = _Asked(ask, failed, on_reply)
    tasks = [asyncio.create_task(_see_to(route, asked, elsewhere, end)) for route in routes]
    if tasks:
        _, pending = await asyncio.wait(tasks, timeout=deadline)
        for task in pending:
            task.cancel()
        for task in set(tasks) - pending:
            task.result()  # a bug is not an answer
    return asked.end(deadline)


async def _see_to(route: Route, asked: "_Asked", elsewhere: Elsewhere | None, end: float) -> None:
    """Ask a route, and if need be again."""
    delay = elsewhere.delay(route, end - time.monotonic()) if elsewhere is not None else None
    if elsewhere is None or delay is None:
        reply = await asked.ask(asked.begin(route))
    else:
        first = asked.begin(route)
        task = asyncio.create_task(asked.ask(first))
        try:
            await asyncio.wait({task}, timeout=delay)
            if not task.done():
                await asked.race(first, task, [asked.begin(other) for other in elsewhere.hedge(route)])
                return
            reply = task.result()
        finally:
            task.cancel()
    if elsewhere is not None and _broke(reply):
        others = await elsewhere.retry(route)
        await asyncio.gather(*(asked.ask(asked.begin(other)) for other in others))


class _Asked:
    """All that are asked for one answer, in the order in which they were, by number."""

    def __init__(
        self,
        ask: Callable[[Route], Awaitable[DeviceReply]],
        failed: Callable[[Route, EdvitError], DeviceReply],
        on_reply: OnReply,
    ) -> None:
        self._ask = ask
        self._failed = failed
        self._on_reply = on_reply
        self._asked: list[tuple[Route, DeviceReply | None]] = []

    def begin(self, route: Route) -> int:
        """Take a route up."""
        self._asked.append((route, None))
        return len(self._asked) - 1

    async def ask(self, number: int) -> DeviceReply:
        """Ask, and keep the reply."""
        route, _ = self._asked[number]
        reply = await self._ask(route)
        self._asked[number] = route, reply
        self._on_reply(route, reply)
        return reply

    async def race(self, first: int, asking: asyncio.Task[DeviceReply], others: Sequence[int]) -> None:
        """Ask the others, too, and wait until the first has answered or all of them have."""
        tasks = {asking: first, **{asyncio.create_task(self.ask(other)): other for other in others}}
        running = set(tasks)
        try:
            while running:
                _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                if self._answered([first]) or (others and self._answered(others)):
                    for task in running:
                        route, _ = self._asked[tasks[task]]
                        self._asked[tasks[task]] = route, self._failed(route, _outrun(route))
                    return
        finally:
            for task in tasks:
                task.cancel()

    def end(self, deadline: float) -> list[DeviceReply]:
        """All replies; who has not answered is late."""
        replies = []
        for route, reply in self._asked:
            if reply is None:
                reply = self._failed(route, late(route.link.address, deadline))
                self._on_reply(route, reply)
            replies.append(reply)
        return replies

    def _answered(self, numbers: Sequence[int]) -> bool:
        return all(
            reply is not None and reply.error is None
            for _, reply in (self._asked[number] for number in numbers)
        )


def _broke(reply: DeviceReply) -> bool:
    return isinstance(reply.error, LinkError) and not isinstance(reply.error, DeadlineError)


def _outrun(route: Route) -> DeadlineError:
    return DeadlineError(
        f"{route.name} was slower than usual, and another device that holds the same answered first",
        code="device.slower",
    )


def _request(manifest: Manifest, route: Route, question: str, digest: bytes) -> InferRequest:
    """All of a request but the picture."""
    return InferRequest(
        request_id=question,
        bundle=manifest.name,
        bundle_version=manifest.version,
        submodels=route.submodels,
        manifest=digest,
    )


async def _ask(
    manifest: Manifest, route: Route, request: InferRequest, picture: Encoded, end: float
) -> DeviceReply:
    coding, rest = await picture.serialised(route.coding)
    sent = request.ByteSize() + len(rest)
    start = time.monotonic()
    reply: InferReply | None = None
    try:
        reply = await route.link.infer(request, timeout=max(0.001, end - start), rest=rest)
        features = features_of(reply, request, manifest, f"{route.name} ({route.link.address})")
    except EdvitError as error:
        received = reply.ByteSize() if reply is not None else 0
        return _failed(route, error, coding=coding, sent=sent, received=received)
    return DeviceReply(
        device=route.device,
        name=route.name,
        submodels=route.submodels,
        features=features,
        milliseconds=1000 * (time.monotonic() - start),
        interpreter_milliseconds=max([output.microseconds for output in reply.outputs]) / 1000,
        decode_milliseconds=reply.decode_microseconds / 1000,
        codec=coding.codec,
        sent_bytes=sent,
        received_bytes=reply.ByteSize(),
    )


def _failed(
    route: Route, error: EdvitError, *, coding: Coding = EXACT, sent: int = 0, received: int = 0
) -> DeviceReply:
    return DeviceReply(
        device=route.device,
        name=route.name,
        submodels=route.submodels,
        features={},
        milliseconds=0.0,
        interpreter_milliseconds=0.0,
        codec=coding.codec if sent else "",
        sent_bytes=sent,
        received_bytes=received,
        error=error,
    )
