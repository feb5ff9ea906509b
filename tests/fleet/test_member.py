"""One device through good and bad days, on a clock that jumps."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import DeadlineError, DeviceError, LinkError
from edvit_tf.fleet import Announced, State, Timing
from edvit_tf.fleet.member import Member
from edvit_tf.rpc.edvit_pb2 import HelloReply
from edvit_tf.rpc.link import PROTOCOL, Link
from tests.fleet.clock import now, run
from tests.fleet.fakes import FakeDevice, Network, device_id


async def nothing(link: Link, hello: HelloReply) -> HelloReply:
    del link
    return hello


@asynccontextmanager
async def watched(network: Network, announced: Announced | None = None) -> AsyncIterator[Member]:
    member = Member(
        announced or network.announced[0],
        connect=network.connect,
        prepare=nothing,
        random=Random(3),
        clock=now,
    )
    task = asyncio.create_task(member.run())
    try:
        yield member
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(member: Member, state: State, seconds: float = 60.0) -> float:
    """Wait for a state; return how long it took."""
    start = now()
    async with asyncio.timeout(seconds):
        while member.state is not state:
            await member.changed()
    return now() - start


def test_a_device_that_answers_is_up(bundle: Bundle) -> None:
    async def story() -> None:
        async with watched(Network(FakeDevice(0, bundle))) as member:
            assert member.state is State.CONNECTING
            assert member.link is None
            await until(member, State.UP)
            assert member.link is not None
            assert (member.id, member.name) == (device_id(0), "fake-0")

    run(story())


def test_a_silent_device_is_down_within_six_seconds_without_any_request(bundle: Bundle) -> None:
    async def story() -> None:
        device = FakeDevice(0, bundle)
        async with watched(Network(device)) as member:
            await until(member, State.UP)
            device.delay = 1000.0
            took = await until(member, State.DOWN)
            assert 2.0 < took <= 6.0
            assert "did not answer" in member.reason
            assert member.standing.since == now()
            device.delay = 0.0
            assert await until(member, State.UP) <= 5.0
            assert member.reason == ""

    run(story())


def test_a_picture_that_came_too_late_makes_it_suspect_and_a_heartbeat_clears_it(bundle: Bundle) -> None:
    async def story() -> None:
        async with watched(Network(FakeDevice(0, bundle))) as member:
            await until(member, State.UP)
            await asyncio.sleep(10.0)
            link = member.link
            assert link is not None
            member.report(link, DeadlineError("it did not answer"))
            assert (member.state, member.asked, member.link) == (State.SUSPECT, None, link)
            await until(member, State.SLOW, 0.1)
            assert member.asked is None, "it rests"
            await member.ready()
            assert member.asked is link
            member.answered(link, [], 0.001)
            assert member.state is State.UP

    run(story())


def test_a_busy_device_rests_and_keeps_its_link(bundle: Bundle) -> None:
    async def story() -> None:
        async with watched(Network(FakeDevice(0, bundle))) as member:
            await until(member, State.UP)
            link = member.link
            assert link is not None
            member.report(link, DeviceError("it is busy", code="device.busy"))
            await asyncio.sleep(0.1)
            assert member.link is link
            assert member.asked is None

    run(story())


def test_one_lost_heartbeat_is_forgiven(bundle: Bundle) -> None:
    async def story() -> None:
        device = FakeDevice(0, bundle)
        async with watched(Network(device)) as member:
            await until(member, State.UP)
            link = member.link
            device.delay = 1000.0
            await until(member, State.SUSPECT, 2.1)
            device.delay = 0.0
            await until(member, State.UP, 1.5)
            await asyncio.sleep(30.0)
            assert member.state is State.UP
            assert member.link is link, "the same connection"

    run(story())


def test_a_failed_request_takes_it_down_at_once_and_it_comes_back(bundle: Bundle) -> None:
    async def story() -> None:
        async with watched(Network(FakeDevice(0, bundle))) as member:
            await until(member, State.UP)
            await asyncio.sleep(10.0)
            link = member.link
            assert link is not None
            member.report(link, LinkError("the wire is cut"))
            assert (member.state, member.reason, member.link) == (
                State.DOWN,
                "the wire is cut",
                None,
            )
            assert await until(member, State.UP) < 0.2
            member.report(link, LinkError("word of the old link, late"))
            assert member.state is State.UP

    run(story())


def test_the_wait_grows_to_its_limit_and_a_hint_ends_it(bundle: Bundle) -> None:
    async def story() -> None:
        device = FakeDevice(0, bundle)
        device.alive = False
        network = Network(device)
        async with watched(network) as member:
            await asyncio.sleep(300.0)
            assert 300 / 3.6 < device.hellos < 300 / 2.4 + 12
            device.alive = True
            member.seen(network.announced[0])
            assert await until(member, State.UP) < 0.01

    run(story())


def test_a_device_that_moved_is_found_where_it_is_announced(bundle: Bundle) -> None:
    async def story() -> None:
        network = Network(FakeDevice(0, bundle))
        async with watched(network) as member:
            await until(member, State.UP)
            network.devices["7"] = network.devices.pop("0")
            network.devices["7"].alive = False
            await until(member, State.DOWN)
            network.devices["7"].alive = True
            member.seen(Announced("7", device_id(0)))
            assert await until(member, State.UP) < 0.5
            assert member.status().address == "7"
            network.devices["7"].alive = False
            await until(member, State.DOWN)
            network.tried.clear()
            await asyncio.sleep(30.0)
            assert set(network.tried) == {"7"}, "the old address is forgotten"

    run(story())


def test_an_impostor_is_refused_and_the_real_device_is_found_again(bundle: Bundle) -> None:
    async def story() -> None:
        real, impostor = FakeDevice(0, bundle), FakeDevice(1, bundle)
        network = Network(real, impostor)
        async with watched(network) as member:
            await until(member, State.UP)
            real.alive = False
            await until(member, State.DOWN)
            member.seen(Announced("1", device_id(0)))
            await until(member, State.REFUSED)
            assert "something else listens" in member.reason
            real.alive = True
            assert await until(member, State.UP) < 5.0
            assert member.status().address == "0"

    run(story())


@pytest.mark.parametrize("protocol", [PROTOCOL + 1, PROTOCOL + 7])
def test_a_device_of_another_age_is_refused_in_a_sentence(bundle: Bundle, protocol: int) -> None:
    async def story() -> None:
        device = FakeDevice(0, bundle)
        device.protocol = protocol
        async with watched(Network(device)) as member:
            await until(member, State.REFUSED)
            assert "update edvit-tf" in member.reason
            device.protocol = PROTOCOL - 1
            await until(member, State.UP)

    run(story())


def test_a_refusal_is_tried_again_ever_more_rarely(bundle: Bundle) -> None:
    async def story() -> None:
        device = FakeDevice(0, bundle)
        tried = 0

        async def refusing(link: Link, hello: HelloReply) -> HelloReply:
            nonlocal tried
            tried += 1
            raise DeviceError(f"no room on {hello.name} at {link.address}")

        member = Member(
            Network(device).announced[0],
            connect=Network(device).connect,
            prepare=refusing,
            random=Random(3),
            clock=now,
        )
        task = asyncio.create_task(member.run())
        await asyncio.sleep(600.0)
        assert (member.state, member.reason) == (State.REFUSED, "no room on fake-0 at 0")
        assert 15 < tried < 50
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(story())


def test_waits_are_jittered_around_a_growing_middle() -> None:
    timing, random = Timing(), Random(1)
    first = [timing.delay(1, random) for _ in range(200)]
    assert 0.08 <= min(first) < 0.09
    assert 0.11 < max(first) <= 0.12
    assert max(timing.delay(1000, random) for _ in range(200)) <= 3.6
    assert timing.delay(1000, random, refused=True) >= 24
