"""Failover over fake devices, in real time with short waits; what is moved is written down."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.fleet import Deployment, Timing
from edvit_tf.fleet.keeper import Keeper
from edvit_tf.fleet.standing import rows_of
from edvit_tf.fleet.state import FleetState
from edvit_tf.plan.failover import Policy
from tests.fleet.fakes import FakeDevice, Network, device_id, fleet_of, picture

QUICK = Timing(hello=0.3, heartbeat=0.1, first_delay=0.02, longest_delay=0.1, longest_refused=0.3)
SOON = Policy(grace=0.3, first_stay=0.6)


@dataclass(frozen=True, slots=True)
class Kept:
    keeper: Keeper
    network: Network
    state: FleetState
    bundle: Bundle

    def holder(self, number: int) -> str:
        """Who holds a sub-model, "0" and up."""
        submodel = self.bundle.manifest.submodels[number].id
        return str(int(self.keeper.aggregator.deployment.holder(submodel), 16))

    async def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> float:
        """Seconds that it took."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 (from a thread, from the disk, from anywhere)
                await asyncio.sleep(0.02)
        return loop.time() - start

    async def complete(self) -> bool:
        return (await self.keeper.aggregator.classify(picture(self.bundle))).complete


@asynccontextmanager
async def kept(bundle: Bundle, folder: Path, *, spares: int = 3) -> AsyncIterator[Kept]:
    network, deployment = fleet_of(bundle)
    number = len(network.devices)
    for spare in range(number, number + spares):
        network.devices[str(spare)] = FakeDevice(spare, bundle)
    with FleetState(folder) as state:
        state.deploy(bundle, Deployment(deployment.assignment, tuple(network.announced)))
        keeper = Keeper(state, network.connect, deadline=0.5, browse=False, timing=QUICK, policy=SOON)
        async with keeper:
            assert await keeper.aggregator.complete(5.0)
            yield Kept(keeper, network, state, bundle)


async def test_what_a_lost_device_held_is_answered_by_another_and_it_takes_it_back(
    bundle: Bundle, tmp_path: Path
) -> None:
    async with kept(bundle, tmp_path) as it:
        assert await it.complete()
        it.network.devices["0"].alive = False
        await it.until(lambda: it.holder(0) != "0")
        stand_in = it.network.devices[it.holder(0)]
        assert stand_in.installs == variants(bundle)
        assert await it.complete()
        it.network.devices["0"].alive = True
        took = await it.until(lambda: it.holder(0) == "0")
        assert took > SOON.first_stay, "it proves itself first"
        assert await it.complete()
        assert it.network.devices["0"].installs == 0, "it had it still"
        await it.until(lambda: not stand_in.served)
        assert await it.complete()
    with FleetState(tmp_path) as state:
        _, deployment = state.deployed()
        assert deployment.moved == {}
        texts = [event.text for event in state.events()]
    name = bundle.manifest.submodels[0].id
    moves = [text for text in texts if text.startswith("took")]
    assert len(moves) == 2
    assert "fake-0 is lost (the wire is cut)" in moves[0]
    assert moves[1].startswith(f"took {name} ")
    assert "fake-0 is back" in moves[1]


async def test_an_aggregator_that_starts_again_knows_what_has_moved(bundle: Bundle, tmp_path: Path) -> None:
    async with kept(bundle, tmp_path) as it:
        it.network.devices["0"].alive = False
        await it.until(lambda: it.holder(0) != "0")
        before = it.holder(0)
        network = it.network
    with FleetState(tmp_path) as state:
        async with Keeper(
            state, network.connect, deadline=0.5, browse=False, timing=QUICK, policy=SOON
        ) as keeper:
            again = Kept(keeper, network, state, bundle)
            assert again.holder(0) == before
            assert await again.complete()
            installed = {device.name: device.installs for device in network.devices.values()}
            await asyncio.sleep(1.0)
            assert again.holder(0) == before
            assert installed == {device.name: device.installs for device in network.devices.values()}


async def test_a_start_with_devices_missing_moves_nothing_at_once(bundle: Bundle, tmp_path: Path) -> None:
    network, deployment = fleet_of(bundle)
    network.devices["7"] = FakeDevice(7, bundle)
    network.devices["8"] = FakeDevice(8, bundle)
    network.devices["0"].alive = False
    with FleetState(tmp_path) as state:
        state.deploy(bundle, Deployment(deployment.assignment, tuple(network.announced)))
        async with Keeper(
            state, network.connect, deadline=0.5, browse=False, timing=QUICK, policy=SOON
        ) as keeper:
            await asyncio.sleep(1.5)
            assert keeper.aggregator.deployment.moved == {}


async def test_half_lost_moves_nothing_and_says_so(bundle: Bundle, tmp_path: Path) -> None:
    async with kept(bundle, tmp_path, spares=2) as it:
        lost = ["0", "2"]
        for device in lost:
            it.network.devices[device].alive = False
        await it.until(lambda: bool(it.state.serving()[1]))
        assert "2 of 4 devices are lost (fake-0, fake-2)" in it.state.serving()[1]
        await asyncio.sleep(0.5)
        assert it.holder(0) == "0"
        it.network.devices["2"].alive = True
        await it.until(lambda: it.holder(0) != "0")
        await it.until(lambda: it.state.serving()[1] == "")


async def test_a_drained_device_is_emptied_without_a_gap_and_filled_when_it_may_be(
    bundle: Bundle, tmp_path: Path
) -> None:
    async with kept(bundle, tmp_path) as it:
        with FleetState(tmp_path) as operator:
            operator.drain(device_id(0), drained=True)
        answers = []
        while it.holder(0) == "0" or it.network.devices["0"].served:
            answers.append(await it.complete())
            await asyncio.sleep(0.02)
        assert all(answers)
        assert await it.complete()
        with FleetState(tmp_path) as operator:
            operator.drain(device_id(0), drained=False)
        await it.until(lambda: it.holder(0) == "0")
        assert await it.complete()


async def test_a_removed_device_is_left_alone_and_a_new_one_is_taken(bundle: Bundle, tmp_path: Path) -> None:
    async with kept(bundle, tmp_path) as it:
        it.network.devices["0"].alive = False
        await it.until(lambda: it.holder(0) != "0")
        with FleetState(tmp_path) as operator:
            operator.remove(device_id(0))
        await it.until(lambda: device_id(0) not in it.keeper.aggregator.members)
        hellos = it.network.devices["0"].hellos
        await asyncio.sleep(0.5)
        assert it.network.devices["0"].hellos == hellos
        assert await it.complete()
        it.network.devices["9"] = FakeDevice(9, bundle)
        with FleetState(tmp_path) as operator:
            operator.enrol(it.network.announced[-1])
        await it.until(lambda: device_id(9) in it.keeper.aggregator.members)


async def test_one_that_refuses_is_passed_over(bundle: Bundle, tmp_path: Path) -> None:
    async with kept(bundle, tmp_path) as it:
        spares = [it.network.devices[name] for name in ("2", "3", "4")]
        for spare in spares[:2]:
            spare.refuses = "the disk is full"
        it.network.devices["0"].alive = False
        await it.until(lambda: it.holder(0) == "4")
        assert await it.complete()


async def test_flapping_does_not_send_the_sub_model_to_and_fro(bundle: Bundle, tmp_path: Path) -> None:
    async with kept(bundle, tmp_path) as it:
        flapping = it.network.devices["0"]
        for _ in range(4):
            flapping.alive = False
            await asyncio.sleep(0.7)
            flapping.alive = True
            await asyncio.sleep(0.4)
        installs = sum(device.installs for device in it.network.devices.values())
        assert installs == variants(bundle)
        assert it.holder(0) != "0"


def variants(bundle: Bundle) -> int:
    """How often something is sent for one sub-model: the device keeps the variant that it runs fastest."""
    return len(bundle.manifest.submodels[0].variants)


async def test_nothing_is_left_running(bundle: Bundle, tmp_path: Path) -> None:
    async with kept(bundle, tmp_path):
        pass
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_state_that_cannot_be_written_does_not_end_the_answers(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(bundle, tmp_path) as it:

        def full(*_: object) -> None:
            from edvit_tf.errors import EdvitError

            raise EdvitError("the disk is full")

        monkeypatch.setattr(it.state, "seen", full)
        monkeypatch.setattr(it.state, "move", full)
        it.network.devices["0"].alive = False
        await it.until(lambda: it.holder(0) != "0")
        assert await it.complete()


async def test_what_went_to_each_device_is_written_down(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edvit_tf.fleet.keeper.SENT_SECONDS", 0.0)
    async with kept(bundle, tmp_path) as it:
        answer = await it.keeper.aggregator.classify(picture(bundle))
        sent = {part.device: (part.codec, part.sent_bytes) for part in answer.devices}

        def written() -> dict[str, tuple[str, int]]:
            return {row.id: (row.codec, row.sent_bytes) for row in rows_of(it.state.devices()) if row.codec}

        await it.until(lambda: written() == sent)
        await it.keeper.aggregator.classify(picture(bundle))
        twice = {device: (codec, 2 * size) for device, (codec, size) in sent.items()}
        await it.until(lambda: written() == twice)
