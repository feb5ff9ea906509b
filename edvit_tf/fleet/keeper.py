"""Keeps an aggregator running for what is deployed, moves what a lost device held, and keeps the state true.

The verbs write into the state what the operator wants; the keeper sees it there and acts.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import EdvitError
from edvit_tf.fleet.again import OnAgain
from edvit_tf.fleet.aggregator import cancel
from edvit_tf.fleet.deploy import Deployment
from edvit_tf.fleet.hello import State
from edvit_tf.fleet.history import History
from edvit_tf.fleet.hold import running
from edvit_tf.fleet.inward import Inward
from edvit_tf.fleet.member import Connect, Member, Timing
from edvit_tf.fleet.moving import MovingAggregator
from edvit_tf.fleet.placing import UNKNOWN, host_of, parts_of
from edvit_tf.fleet.state import FleetState, Known
from edvit_tf.fleet.wire import DEFAULT_WIRE, WireSettings
from edvit_tf.plan.failover import DEFAULT_POLICY, Host, Move, Part, Policy, plan
from edvit_tf.rpc.edvit_pb2 import HelloReply

LOOK_SECONDS = 0.25
# It opens the new bundle, connects, and ends what it was asked before.
CHANGE_SECONDS = 20.0
# After a start devices come back by themselves, not all at once; nothing is moved because of that.
START_PATIENCE_SECONDS = 15.0
# The bytes that went to each device are written down no more often than this.
SENT_SECONDS = 5.0
# A device that refused something is not asked again for so long.
REFUSED_SECONDS = 30.0

OnMove = Callable[[], None]
OnPause = Callable[[bool], None]

log = logging.getLogger(__name__)


class Keeper:
    """An async context that keeps an aggregator for what `state` says is deployed; `aggregator` is it.

    Args:
        state: the fleet's, open.
        connect: makes a link from an address and a device's id.
        deadline: seconds for an answer.
        browse: listen for devices that announce themselves anew.
        inward: the devices that dial in; the keeper says who may.
        timing: intervals of connecting and keeping watch.
        policy: when something is moved.
        on_move, on_pause: called when a sub-model has moved, and when moving is paused or goes on.
        wire: in which codec pictures are sent.
        on_again: called when a device is asked again within an answer.
    """

    def __init__(
        self,
        state: FleetState,
        connect: Connect,
        *,
        deadline: float,
        browse: bool = True,
        inward: Inward | None = None,
        timing: Timing | None = None,
        policy: Policy = DEFAULT_POLICY,
        on_move: OnMove = lambda: None,
        on_pause: OnPause = lambda _: None,
        wire: WireSettings = DEFAULT_WIRE,
        on_again: OnAgain = lambda _: None,
    ) -> None:
        self._state = state
        self._connect = connect
        self._deadline = deadline
        self._browse = browse
        self._inward = inward
        self._timing = timing
        self._policy = policy
        self._on_move = on_move
        self._on_pause = on_pause
        self._wire = wire
        self._on_again = on_again
        self._aggregator: MovingAggregator | None = None
        self._seen = -1
        self._histories: dict[str, History] = {}
        self._moving: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self._releasing: dict[str, asyncio.Task[None]] = {}
        self._refusals: dict[tuple[str, str], tuple[float, str]] = {}
        self._sent: dict[str, tuple[str, int]] = {}
        self._sent_at = 0.0
        self._paused = ""
        self._stuck: dict[str, str] = {}
        # Writing waits for the disk, and one thread keeps the order.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._task: asyncio.Task[None] | None = None

    @property
    def aggregator(self) -> MovingAggregator:
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
        tasks = [*self._releasing.values(), *(task for _, task in self._moving.values())]
        if self._task is not None:
            tasks.append(self._task)
        await cancel(tasks)
        await self.aggregator.__aexit__(None, None, None)
        await asyncio.to_thread(self._writer.shutdown)

    async def _open(self, bundle: Bundle, deployment: Deployment, *, trial: bool) -> MovingAggregator:
        self._know(deployment)
        aggregator = MovingAggregator(
            bundle,
            deployment,
            connect=self._connect,
            deadline=self._deadline,
            browse=self._browse,
            inward=self._inward,
            timing=self._timing,
            trial=trial,
            on_change=self._on_change,
            wire=self._wire,
            on_again=self._on_again,
        )
        await aggregator.__aenter__()
        return aggregator

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                changes = self._state.changes()
                if changes != self._seen:
                    self._seen = changes
                    await self._take_over()
                self._plan()
            except EdvitError as error:
                log.error("%s", error.message)  # noqa: TRY400 (a sentence says more than a trace)

    def _know(self, deployment: Deployment) -> None:
        for device in deployment.devices:
            self._histories.setdefault(device.id, History(time.monotonic()))
        if self._inward is not None:
            self._inward.admit([device.id for device in deployment.devices])

    async def _take_over(self) -> None:
        """Act on what somebody else has written into the state."""
        # After what waits to be written: a move that has just been made must not be forgotten.
        bundle, deployment = await asyncio.wrap_future(self._writer.submit(self._state.deployed))
        self._know(deployment)
        if bundle.manifest_bytes == self.aggregator.bundle.manifest_bytes:
            await self.aggregator.place(deployment)
            return
        log.info("changing over to %s version %d", bundle.manifest.name, bundle.manifest.version)
        await cancel([task for _, task in self._moving.values()])
        before, self._aggregator = self.aggregator, await self._open(bundle, deployment, trial=True)
        self._state.serve(bundle, self._paused)
        await before.__aexit__(None, None, None)  # when what it was asked is answered
        await self._aggregator.settle()

    def _plan(self) -> None:
        """Begin what failover's plan says, and let go of what is held for nobody any more."""
        now = time.monotonic()
        parts, hosts = self._parts(now), self._hosts(now)
        self._write_sent(now)
        made = plan(parts, hosts, self._policy)
        self._say_paused(made.paused)
        for submodel, reason in made.stuck.items():
            if self._stuck.get(submodel) != reason:
                log.warning("%s is not moved: %s", submodel, reason)
        self._stuck = dict(made.stuck)
        for move in made.moves:
            if move.submodel not in self._moving:
                self._moving[move.submodel] = (move.device, asyncio.create_task(self._move(move)))
        busy = {device for device, _ in self._moving.values()} | self._releasing.keys()
        for device in self.aggregator.members:
            if device not in busy and self.aggregator.surplus(device):
                self._releasing[device] = asyncio.create_task(self._release(device))

    def _hellos(self) -> dict[str, HelloReply]:
        return {
            device: member.hello
            for device, member in self.aggregator.members.items()
            if member.hello is not None
        }

    def _parts(self, now: float) -> list[Part]:
        self._refusals = {key: value for key, value in self._refusals.items() if value[0] > now}
        deployment = self.aggregator.deployment
        under_way = {submodel: device for submodel, (device, _) in self._moving.items()}
        moved = Deployment(deployment.assignment, deployment.devices, {**deployment.moved, **under_way})
        refusals = {key: reason for key, (_, reason) in self._refusals.items()}
        return parts_of(self.aggregator.bundle, moved, self._hellos(), refusals)

    def _hosts(self, now: float) -> list[Host]:
        hosts = []
        for device, member in self.aggregator.members.items():
            history = self._histories[device]
            history.note(member.standing.connected, now)
            asked = member.asked is not None
            hosts.append(
                host_of(
                    member.hello or HelloReply(id=device, name=member.name),
                    trouble="" if asked else member.reason or UNKNOWN,
                    away=history.away(now, START_PATIENCE_SECONDS),
                    steady=history.steady(now),
                    falls=history.lately(now),
                    drained=device in self.aggregator.deployment.drained,
                )
            )
        return hosts

    def _say_paused(self, paused: str) -> None:
        if paused == self._paused:
            return
        self._paused = paused
        self._on_pause(bool(paused))
        log.warning("%s", paused or "enough devices are back: sub-models may move again")
        self._write(self._state.serve, self.aggregator.bundle, paused)

    async def _move(self, move: Move) -> None:
        name = self.aggregator.members[move.device].name
        began = time.monotonic()
        try:
            await self.aggregator.move(move.submodel, move.device)
        except EdvitError as error:
            log.warning("%s does not take %s: %s", name, move.submodel, error.message)
            refusal = time.monotonic() + REFUSED_SECONDS, error.message
            self._refusals[move.submodel, move.device] = refusal
        else:
            took = time.monotonic() - began
            event = f"took {move.submodel} within {took:.1f} s: {move.reason}"
            log.info("%s %s", name, event)
            self._on_move()
            self._write(self._state.move, move.submodel, move.device, event)
            self._write_holdings(move.device)
        finally:
            self._moving.pop(move.submodel, None)

    async def _release(self, device: str) -> None:
        try:
            await self.aggregator.release(device)
            self._write_holdings(device)
        except EdvitError as error:
            log.warning("%s", error.message)
            await asyncio.sleep(REFUSED_SECONDS)
        finally:
            self._releasing.pop(device, None)

    def _on_change(self, member: Member) -> None:
        if member.state is State.CONNECTING:
            return
        history = self._histories.setdefault(member.id, History(time.monotonic()))
        history.note(member.standing.connected, time.monotonic())
        reason = member.reason
        self._write_down(member, f"is {member.state.value}{reason and f': {reason}'}")

    def _write_holdings(self, device: str) -> None:
        """Keep what a device holds, when no change of its state does."""
        if member := self.aggregator.members.get(device):
            self._write_down(member)

    def _write_sent(self, now: float) -> None:
        if now - self._sent_at < SENT_SECONDS:
            return
        self._sent_at = now
        for device, member in self.aggregator.members.items():
            said = (member.codec, member.sent_bytes)
            if member.codec and self._sent.get(device) != said:
                self._sent[device] = said
                self._write(self._state.sent, device, *said)

    def _write_down(self, member: Member, event: str = "") -> None:
        row = member.status()
        known = Known(
            id=member.id,
            name=row.name,
            address=row.address,
            drained=False,
            state=row.state,
            reason=row.reason,
            since=time.time() - (time.monotonic() - member.standing.since),
            hello=member.hello.SerializeToString() if member.hello else b"",
        )
        self._write(self._state.seen, known, event)

    def _write(self, function: Callable[..., None], *arguments: Any) -> None:
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
