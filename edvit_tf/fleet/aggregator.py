"""The aggregator: keeps every device of a deployment connected, and answers pictures through them."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import DeadlineError, LinkError
from edvit_tf.fleet.again import Insisting, OnAgain
from edvit_tf.fleet.answer import Answer, DeviceReply, fused_answer
from edvit_tf.fleet.deploy import Deployment, ensure, examine
from edvit_tf.fleet.discover import Announced, Browser
from edvit_tf.fleet.dispatch import DEFAULT_DEADLINE, Route, dispatch
from edvit_tf.fleet.hello import DeviceStatus
from edvit_tf.fleet.inward import Inward
from edvit_tf.fleet.member import Connect, Member, Timing
from edvit_tf.fleet.wire import DEFAULT_WIRE, Wire, WireSettings
from edvit_tf.rpc.codecs import NOT_DECODED, RAW
from edvit_tf.rpc.edvit_pb2 import HelloReply
from edvit_tf.rpc.link import Link
from edvit_tf.runtime.fusion import Fusion

START_SECONDS = 2.0
# A device whose connection broke and that lives is connected again sooner than this.
RETRY_SECONDS = 0.3

OnChange = Callable[[Member], None]

log = logging.getLogger(__name__)


class Aggregator:
    """Answers pictures through the devices of a deployment, by the deadline, whatever became of the devices.

    An async context manager: on entering it waits until all devices are up, at most `START_SECONDS`. A device
    that returns is taken back, at another address too, and gets its sub-model again when it has lost it.

        async with Aggregator(bundle, deployment, connect=with_keys(keys)) as fleet:
            answer = await fleet.classify(image)

    Args:
        bundle: what was deployed.
        deployment: which device has what, from `deploy` or a state folder.
        connect: makes a link from an address and a device's id.
        deadline: seconds that `classify` may take.
        browse: listen for devices that announce themselves anew.
        timing: intervals of connecting and keeping watch.
        inward: the devices that dial in.
        trial: the bundle may still be on trial (`deploy`'s `on_switch`): the devices keep the one before it.
        on_change: called when a device comes to another state.
        wire: in which codec pictures are sent; by default as each device's link needs it.
        on_again: called when a device is asked again within an answer, or would be if the budget allowed it.
    """

    def __init__(
        self,
        bundle: Bundle,
        deployment: Deployment,
        *,
        connect: Connect,
        deadline: float = DEFAULT_DEADLINE,
        browse: bool = True,
        inward: Inward | None = None,
        timing: Timing | None = None,
        trial: bool = False,
        on_change: OnChange = lambda _: None,
        wire: WireSettings = DEFAULT_WIRE,
        on_again: OnAgain = lambda _: None,
    ) -> None:
        self._bundle = bundle
        self._digest = hashlib.sha256(bundle.manifest_bytes).digest()
        self._deployment = deployment
        self._deadline = deadline
        self._fusion = Fusion(bundle)
        self._wire = Wire(bundle.manifest.input, wire)
        self._browse = browse
        self._inward = inward
        self._trial = trial
        self._connect = connect
        self._timing = timing
        self._on_change = on_change
        self._members = {device.id: self._member(device) for device in deployment.devices}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._insisting = Insisting(self._elsewhere, self._back, on_again)
        self._asking = 0
        self._idle = asyncio.Event()
        self._exits = AsyncExitStack()

    def _member(self, device: Announced) -> Member:
        return Member(
            device,
            connect=self._connect,
            prepare=partial(self._prepare, device.id),
            timing=self._timing,
            on_change=self._on_change,
        )

    async def __aenter__(self) -> Self:
        self._exits.push_async_callback(self._stop)
        for device, member in self._members.items():
            self._tasks[device] = asyncio.create_task(member.run())
        if self._browse:
            try:
                await self._exits.enter_async_context(Browser(self._on_found))
            except LinkError as error:
                log.warning("%s", error.message)  # only a hint is lost
        if self._inward is not None:
            self._exits.enter_context(self._inward.watched(self._on_found))
        await self.complete(START_SECONDS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exits.aclose()

    async def complete(self, timeout: float) -> bool:
        """Wait until every device is up, at most `timeout` seconds; tell whether they are."""
        try:
            async with asyncio.timeout(timeout):
                for member in self._members.values():
                    await member.ready()
        except TimeoutError:
            return False
        return all(member.asked is not None for member in self._members.values())

    @property
    def bundle(self) -> Bundle:
        """What it answers from."""
        return self._bundle

    @property
    def deployment(self) -> Deployment:
        """Who has what."""
        return self._deployment

    @property
    def members(self) -> Mapping[str, Member]:
        """The devices by id, and where each stands."""
        return self._members

    async def classify(self, image: np.ndarray, *, deadline: float | None = None) -> Answer:
        """Answer one picture, uint8 [height, width, channels] as the manifest's input says.

        `deadline` is in seconds; by default it is the aggregator's own.

        Raises:
            UsageError: the picture has another shape or type.
            DeadlineError: no sub-model answered in time; the sentence has the reason of each device.
        """
        with self.held():
            return await self._classify(image, self._deadline if deadline is None else deadline)

    @contextmanager
    def held(self) -> Iterator[Self]:
        """Keep it running as long as the block lasts: whoever leaves its context waits for that.

        For whoever has to prepare a picture before it can be classified, while another aggregator may take
        the place of this one.
        """
        self._asking += 1
        try:
            yield self
        finally:
            self._asking -= 1
            self._idle.set()

    async def _classify(self, image: np.ndarray, deadline: float) -> Answer:
        start = time.monotonic()
        manifest = self._bundle.manifest
        routes = self._routes()
        picture = self._wire.picture(image)
        self._insisting.asked(len(routes))
        replies = await dispatch(
            manifest,
            routes,
            picture,
            digest=self._digest,
            deadline=deadline,
            on_reply=partial(self._on_reply, deadline),
            elsewhere=self._insisting,
        )
        features = {submodel: value for reply in replies for submodel, value in reply.features.items()}
        if not features:
            raise self._nobody(start)
        probabilities = self._fusion.probabilities(features)
        return fused_answer(manifest, probabilities, replies, 1000 * (time.monotonic() - start))

    def status(self) -> tuple[DeviceStatus, ...]:
        """Where each device stands, sorted by name."""
        rows = [member.status() for member in self._members.values()]
        return tuple(sorted(rows, key=lambda row: (row.name, row.id)))

    def _routes(self) -> list[Route]:
        parts: dict[str, list[str]] = {}
        for submodel in self._deployment.assignment:
            if device := self._answering(submodel):
                parts.setdefault(device, []).append(submodel)
        return self._to(parts)

    def _to(self, parts: Mapping[str, Sequence[str]]) -> list[Route]:
        """The routes to these devices for these sub-models."""
        return [
            self._route(self._members[device], link, submodels)
            for device, submodels in parts.items()
            if (link := self._members[device].asked) is not None
        ]

    def _route(self, member: Member, link: Link, submodels: Sequence[str]) -> Route:
        coding = self._wire.coding(member)
        return Route(member.id, member.name, link, tuple(sorted(submodels)), coding)

    async def _back(self, route: Route) -> list[Route]:
        """The same device again, when it is soon back.

        Of a device that has gone for good an answer should not wait longer than it takes to find that out.
        """
        member = self._members.get(route.device)
        if member is None:
            return []
        try:
            async with asyncio.timeout(RETRY_SECONDS):
                await member.ready()
        except TimeoutError:
            return []
        return self._to({route.device: route.submodels})

    def _elsewhere(self, route: Route) -> list[Route]:
        """Whom to ask for the same sub-models instead; empty unless somebody holds each of them."""
        parts: dict[str, list[str]] = {}
        for submodel in route.submodels:
            for device in self._places(submodel):
                if device != route.device and self._holds(device, submodel):
                    parts.setdefault(device, []).append(submodel)
                    break
        found = self._to(parts)
        return found if sum(len(other.submodels) for other in found) == len(route.submodels) else []

    def _answering(self, submodel: str) -> str | None:
        """Whom to ask for a sub-model: its holder, or its home when only that can answer now."""
        for device in self._places(submodel):
            member = self._members.get(device)
            if member is not None and member.asked is not None:
                return device
        return None

    def _places(self, submodel: str) -> tuple[str, str]:
        """Who may hold a sub-model."""
        return self._deployment.holder(submodel), self._deployment.assignment[submodel]

    def _holds(self, device: str, submodel: str) -> bool:
        """Whether a device should be sent pictures, and says that it serves a sub-model of this bundle."""
        member = self._members.get(device)
        if member is None or member.asked is None or member.hello is None:
            return False
        return any(
            holding.submodel == submodel and holding.serving
            for generation in member.hello.generations
            if generation.manifest == self._digest
            for holding in generation.holdings
        )

    async def _prepare(self, device: str, link: Link, hello: HelloReply) -> HelloReply:
        wanted = self._deployment.wanted(device)
        after = await ensure(link, hello, self._bundle, wanted, settles=not self._trial)
        # It may hold the right bytes and answer for others: what it says of itself proves nothing.
        await examine(link, after, self._bundle, wanted)
        return after

    def _on_found(self, device: Announced) -> None:
        if device.id in self._members:
            self._members[device.id].seen(device)

    def _on_reply(self, deadline: float, route: Route, reply: DeviceReply) -> None:
        member = self._members.get(route.device)
        if member is None:
            return
        if reply.codec:
            member.sent(reply.codec, reply.sent_bytes)
        if reply.error is not None and reply.error.code == NOT_DECODED and reply.codec != RAW:
            member.refuses(reply.codec)
        self._measure(member, route.link, reply, deadline)
        if reply.error is not None:
            member.report(route.link, reply.error)
        else:
            self._insisting.answered(route.device, reply.milliseconds / 1000)
            member.answered(route.link, route.submodels, reply.interpreter_milliseconds / 1000)

    def _measure(self, member: Member, link: Link, reply: DeviceReply, deadline: float) -> None:
        """What a reply says of the link: of a late one that it takes the deadline at least."""
        if reply.error is None:
            took = reply.milliseconds - reply.interpreter_milliseconds - reply.decode_milliseconds
        elif isinstance(reply.error, DeadlineError):
            took = 1000 * deadline
        else:
            return
        member.carried(
            link,
            reply.sent_bytes,
            took / 1000,
            raw=reply.codec == RAW,
            decoding=reply.decode_milliseconds / 1000,
        )

    def _nobody(self, start: float) -> DeadlineError:
        rows = self.status()
        reasons = "; ".join(f"{row.name or row.id[:12]} is {row.state}: {row.reason}" for row in rows)
        waited = time.monotonic() - start
        return DeadlineError(f"no sub-model answered (waited {waited:.2f} s): {reasons}")

    async def _stop(self) -> None:
        while self._asking:  # every one of them ends by its deadline
            self._idle.clear()
            await self._idle.wait()
        await self._wire.close()
        await cancel(list(self._tasks.values()))


async def cancel(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
