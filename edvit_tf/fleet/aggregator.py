"""The aggregator: keeps every device of a deployment connected, and answers pictures through them."""

import asyncio
import hashlib
import logging
import time
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import DeadlineError, EdvitError, LinkError
from edvit_tf.fleet.answer import Answer, fused_answer
from edvit_tf.fleet.deploy import Deployment, ensure, examine
from edvit_tf.fleet.discover import Announced, Browser
from edvit_tf.fleet.dispatch import DEFAULT_DEADLINE, Route, dispatch, encode
from edvit_tf.fleet.hello import DeviceStatus
from edvit_tf.fleet.member import Connect, Member, Timing
from edvit_tf.rpc.edvit_pb2 import HelloReply
from edvit_tf.rpc.link import Link
from edvit_tf.runtime.fusion import Fusion

START_SECONDS = 2.0

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
        trial: the bundle may still be on trial (`deploy`'s `on_switch`): the devices keep the one before it.
    """

    def __init__(
        self,
        bundle: Bundle,
        deployment: Deployment,
        *,
        connect: Connect,
        deadline: float = DEFAULT_DEADLINE,
        browse: bool = True,
        timing: Timing | None = None,
        trial: bool = False,
    ) -> None:
        self._bundle = bundle
        self._digest = hashlib.sha256(bundle.manifest_bytes).digest()
        self._deployment = deployment
        self._deadline = deadline
        self._fusion = Fusion(bundle)
        self._browse = browse
        self._trial = trial
        self._members = {
            device.id: Member(
                device, connect=connect, prepare=partial(self._prepare, device.id), timing=timing
            )
            for device in deployment.devices
        }
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        tasks = [asyncio.create_task(member.run()) for member in self._members.values()]
        self._exits.push_async_callback(_cancel, tasks)
        if self._browse:
            try:
                await self._exits.enter_async_context(Browser(self._on_found))
            except LinkError as error:
                log.warning("%s", error.message)  # only a hint is lost
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
                    while member.link is None:
                        await member.changed()
        except TimeoutError:
            return False
        return all(member.link is not None for member in self._members.values())

    async def classify(self, image: np.ndarray) -> Answer:
        """Answer one picture, uint8 [height, width, channels] as the manifest's input says.

        Raises:
            UsageError: the picture has another shape or type.
            DeadlineError: no sub-model answered in time; the sentence has the reason of each device.
        """
        start = time.monotonic()
        manifest = self._bundle.manifest
        picture = encode(image, manifest.input)
        replies = await dispatch(
            manifest,
            self._routes(),
            picture,
            digest=self._digest,
            deadline=self._deadline,
            on_failure=self._on_failure,
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
        return [
            Route(device, member.name, link, self._deployment.submodels_of(device))
            for device, member in self._members.items()
            if (link := member.link) is not None
        ]

    async def _prepare(self, device: str, link: Link, hello: HelloReply) -> HelloReply:
        submodels = self._deployment.submodels_of(device)
        after = await ensure(link, hello, self._bundle, submodels, settles=not self._trial)
        # It may hold the right bytes and answer for others: what it says of itself proves nothing.
        await examine(link, after, self._bundle, submodels)
        return after

    def _on_found(self, device: Announced) -> None:
        if device.id in self._members:
            self._members[device.id].seen(device)

    def _on_failure(self, route: Route, error: EdvitError) -> None:
        self._members[route.device].report(route.link, error)

    def _nobody(self, start: float) -> DeadlineError:
        rows = self.status()
        reasons = "; ".join(f"{row.name or row.id[:12]} is {row.state}: {row.reason}" for row in rows)
        waited = time.monotonic() - start
        return DeadlineError(f"no sub-model answered (waited {waited:.2f} s): {reasons}")


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
