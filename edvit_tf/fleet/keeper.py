"""Keeps an aggregator running for what is deployed, and the state true to what becomes of the devices.

The verbs write into the state what the operator wants; the keeper sees it there and acts.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import EdvitError
from edvit_tf.fleet.aggregator import Aggregator
from edvit_tf.fleet.deploy import Deployment
from edvit_tf.fleet.hello import State
from edvit_tf.fleet.hold import running
from edvit_tf.fleet.member import Connect, Member, Timing
from edvit_tf.fleet.state import FleetState, Known

LOOK_SECONDS = 0.25
# It opens the new bundle, connects, and ends what it was asked before.
CHANGE_SECONDS = 20.0

log = logging.getLogger(__name__)


class Keeper:
    """An async context that keeps an aggregator for what `state` says is deployed; `aggregator` is it.

    Args:
        state: the fleet's, open.
        connect: makes a link from an address and a device's id.
        deadline: seconds for an answer.
        browse: listen for devices that announce themselves anew.
        timing: intervals of connecting and keeping watch.
    """

    def __init__(
        self,
        state: FleetState,
        connect: Connect,
        *,
        deadline: float,
        browse: bool = True,
        timing: Timing | None = None,
    ) -> None:
        self._state = state
        self._connect = connect
        self._deadline = deadline
        self._browse = browse
        self._timing = timing
        self._aggregator: Aggregator | None = None
        self._seen = -1
        # Writing waits for the disk, and one thread keeps the order.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._task: asyncio.Task[None] | None = None

    @property
    def aggregator(self) -> Aggregator:
        """Who answers at the moment."""
        if self._aggregator is None:
            raise RuntimeError("the keeper has not been entered")
        return self._aggregator

    async def __aenter__(self) -> Self:
        self._seen = self._state.changes()
        bundle, deployment = self._state.deployed()
        self._aggregator = await self._open(bundle, deployment, trial=False)
        self._state.serve(bundle)
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self.aggregator.__aexit__(None, None, None)
        await asyncio.to_thread(self._writer.shutdown)

    async def _open(self, bundle: Bundle, deployment: Deployment, *, trial: bool) -> Aggregator:
        aggregator = Aggregator(
            bundle,
            deployment,
            connect=self._connect,
            deadline=self._deadline,
            browse=self._browse,
            timing=self._timing,
            trial=trial,
            on_change=self._on_change,
        )
        return await aggregator.__aenter__()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._look()
            except EdvitError as error:
                log.error("%s", error.message)  # noqa: TRY400 (a sentence says more than a trace)

    async def _look(self) -> None:
        changes = self._state.changes()
        if changes != self._seen:
            self._seen = changes
            await self._take_over()

    async def _take_over(self) -> None:
        """Act on what somebody else has written into the state."""
        bundle, deployment = await asyncio.to_thread(self._state.deployed)
        if bundle.manifest_bytes == self.aggregator.bundle.manifest_bytes:
            await self.aggregator.place(deployment)
            return
        log.info("changing over to %s version %d", bundle.manifest.name, bundle.manifest.version)
        before, self._aggregator = self.aggregator, await self._open(bundle, deployment, trial=True)
        self._state.serve(bundle)
        await before.__aexit__(None, None, None)  # when what it was asked is answered
        await self._aggregator.settle()

    def _on_change(self, member: Member) -> None:
        row = member.status()
        if member.state is State.CONNECTING or not member.id:
            return
        known = Known(
            id=member.id,
            name=row.name,
            address=row.address,
            drained=False,
            state=row.state,
            reason=row.reason,
            since=time.time(),
            hello=member.hello.SerializeToString() if member.hello else b"",
        )
        event = f"is {row.state}: {row.reason}" if row.reason else f"is {row.state}"
        self._write(self._state.seen, known, event)

    def _write(self, function: Callable[..., None], *arguments: object) -> None:
        def careful() -> None:
            try:
                function(*arguments)
            except EdvitError as error:
                log.error("%s", error.message)  # noqa: TRY400

        self._writer.submit(careful)


async def changed_over(folder: Path) -> bool:
    """Wait until the aggregator that runs on a folder, if any, serves what is deployed; tell whether."""
    end = time.monotonic() + CHANGE_SECONDS
    with FleetState(folder) as state:
        while running(folder) is not None and state.behind():
            if time.monotonic() > end:
                log.warning("the aggregator that runs has not changed over: start it again")
                return False
            await asyncio.sleep(LOOK_SECONDS)
    return True
