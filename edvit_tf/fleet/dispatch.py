"""One picture to every device at once, and what came back by the deadline."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

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
# Whom to ask instead of a route whose connection broke; None: nobody.
Retry = Callable[[Route], Awaitable[Route | None]]


async def dispatch(
    manifest: Manifest,
    routes: Sequence[Route],
    picture: Encoded,
    *,
    digest: bytes = b"",
    deadline: float = DEFAULT_DEADLINE,
    on_reply: OnReply = lambda *_: None,
    retry: Retry | None = None,
) -> list[DeviceReply]:
    """Ask every route and return one reply for each, within `deadline` seconds.

    With `digest`, the SHA-256 of the manifest file, a bundle that only shares its version with it is refused.

    A device that fails, is late or answers garbage has a reply with an error and no features. Late answers
    are dropped. `on_reply` is told of every reply. When a connection breaks, `retry` may say whom to ask
    instead, within the same deadline.
    """
    question = secrets.token_hex(8)
    end = time.monotonic() + deadline

    async def ask(route: Route) -> DeviceReply:
        reply = await _ask(manifest, route, _request(manifest, route, question, digest), picture, end)
        on_reply(route, reply)
        return reply

    async def insist(route: Route) -> DeviceReply:
        reply = await ask(route)
        if retry is None or not isinstance(reply.error, LinkError) or isinstance(reply.error, DeadlineError):
            return reply
        other = await retry(route)
        return reply if other is None else await ask(other)

    tasks = [asyncio.create_task(insist(route)) for route in routes]
    if tasks:
        _, pending = await asyncio.wait(tasks, timeout=deadline)
        for task in pending:
            task.cancel()
    replies = []
    for route, task in zip(routes, tasks, strict=True):
        if task.done() and not task.cancelled():
            replies.append(task.result())
        else:
            error = late(route.link.address, deadline)
            size = picture.size(route.coding)
            replies.append(_failed(route, error, coding=route.coding, sent=size))
            on_reply(route, replies[-1])
    return replies


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
        interpreter_milliseconds=max(output.microseconds for output in reply.outputs) / 1000,
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
