"""One picture to every device at once, and what came back by the deadline."""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edvit_tf.bundle.manifest import InputSpec, Manifest
from edvit_tf.errors import EdvitError, UsageError
from edvit_tf.fleet.answer import DeviceReply, features_of
from edvit_tf.rpc.edvit_pb2 import InferReply, InferRequest, Picture
from edvit_tf.rpc.link import Link, late

DEFAULT_DEADLINE = 2.0


@dataclass(frozen=True, slots=True)
class Route:
    """A device that is up and the sub-models to ask it for."""

    device: str
    name: str
    link: Link
    submodels: tuple[str, ...]


OnReply = Callable[[Route, DeviceReply], None]


def encode(image: np.ndarray, spec: InputSpec) -> Picture:
    """Encode a picture uint8 [height, width, channels] for the wire.

    Raises:
        UsageError: when it has another shape or type than the bundle takes.
    """
    shape = (spec.height, spec.width, spec.channels)
    if image.shape != shape or image.dtype != np.uint8:
        raise UsageError(
            f"the bundle takes pictures uint8 {list(shape)}, not {image.dtype} {list(image.shape)}: "
            "edvit_tf.bundle.picture.prepare makes them"
        )
    return Picture(
        codec="raw", height=spec.height, width=spec.width, channels=spec.channels, data=image.tobytes()
    )


async def dispatch(
    manifest: Manifest,
    routes: Sequence[Route],
    picture: Picture,
    *,
    digest: bytes = b"",
    deadline: float = DEFAULT_DEADLINE,
    on_reply: OnReply | None = None,
) -> list[DeviceReply]:
    """Ask every route and return one reply for each, within `deadline` seconds.

    With `digest`, the SHA-256 of the manifest file, a bundle that only shares its version with it is refused.

    A device that fails, is late or answers garbage has a reply with an error and no features. Late answers
    are dropped. `on_reply` is told of every reply.
    """
    question = secrets.token_hex(8)
    end = time.monotonic() + deadline
    tasks = [
        asyncio.create_task(_ask(manifest, route, _request(manifest, route, picture, question, digest), end))
        for route in routes
    ]
    if tasks:
        _, pending = await asyncio.wait(tasks, timeout=deadline)
        for task in pending:
            task.cancel()
    replies = []
    for route, task in zip(routes, tasks, strict=True):
        reply = (
            task.result()
            if task.done() and not task.cancelled()
            else _failed(route, late(route.link.address, deadline))
        )
        if on_reply:
            on_reply(route, reply)
        replies.append(reply)
    return replies


def _request(
    manifest: Manifest, route: Route, picture: Picture, question: str, digest: bytes
) -> InferRequest:
    return InferRequest(
        request_id=question,
        bundle=manifest.name,
        bundle_version=manifest.version,
        submodels=route.submodels,
        picture=picture,
        manifest=digest,
    )


async def _ask(manifest: Manifest, route: Route, request: InferRequest, end: float) -> DeviceReply:
    start = time.monotonic()
    reply: InferReply | None = None
    try:
        reply = await route.link.infer(request, timeout=max(0.001, end - start))
        features = features_of(reply, request, manifest, f"{route.name} ({route.link.address})")
    except EdvitError as error:
        received = reply.ByteSize() if reply is not None else 0
        return _failed(route, error, sent=request.ByteSize(), received=received)
    return DeviceReply(
        device=route.device,
        name=route.name,
        submodels=route.submodels,
        features=features,
        milliseconds=1000 * (time.monotonic() - start),
        interpreter_milliseconds=max(output.microseconds for output in reply.outputs) / 1000,
        sent_bytes=request.ByteSize(),
        received_bytes=reply.ByteSize(),
    )


def _failed(route: Route, error: EdvitError, *, sent: int = 0, received: int = 0) -> DeviceReply:
    return DeviceReply(
        device=route.device,
        name=route.name,
        submodels=route.submodels,
        features={},
        milliseconds=0.0,
        interpreter_milliseconds=0.0,
        sent_bytes=sent,
        received_bytes=received,
        error=error,
    )
