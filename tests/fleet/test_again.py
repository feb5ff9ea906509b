"""Asking again: when, whom and how often, on a clock that jumps."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import LinkError
from edvit_tf.fleet import Aggregator
from edvit_tf.fleet.again import FEWEST, KEPT, MOST_OF_THE_TIME, Again, Usual, hedge_delay
from edvit_tf.fleet.answer import DeviceReply
from edvit_tf.fleet.budget import MOST, SHARE, Budget
from edvit_tf.fleet.dispatch import Route, dispatch
from edvit_tf.fleet.wire import Encoded
from edvit_tf.rpc.edvit_pb2 import InferReply, InferRequest
from tests.fleet.clock import now, run
from tests.fleet.fakes import FakeDevice, Network, fleet_of, picture

seconds = st.floats(1e-4, 100)


@given(st.lists(seconds, max_size=KEPT), seconds)
def test_who_is_asked_elsewhere_has_time_left(took: list[float], left: float) -> None:
    delay = hedge_delay(took, left)
    assert 0 < delay <= MOST_OF_THE_TIME * left


@given(st.lists(st.floats(0.02, 0.5), min_size=FEWEST, max_size=KEPT))
def test_nobody_is_slow_who_is_as_quick_as_usual(took: list[float]) -> None:
    delay = hedge_delay(took, 60.0)
    assert min(took) <= delay <= max(took)
    assert sum(one > delay for one in took) <= 0.05 * len(took) + 1
    assert hedge_delay([2 * one for one in took], 60.0) == pytest.approx(2 * delay)


def test_what_is_usual_is_what_was_lately() -> None:
    usual = Usual()
    assert usual.of("a") == ()
    for _ in range(KEPT):
        usual.note("a", 10.0)
    for _ in range(KEPT):
        usual.note("a", 0.1)
    assert hedge_delay(usual.of("a"), 2.0) == 0.1


@given(st.lists(st.one_of(st.integers(0, 50), st.none()), max_size=300))
def test_the_budget_is_a_tenth_and_some_at_once(story: list[int | None]) -> None:
    """A number: so many are asked; None: somebody wants to ask again."""
    budget, asked, again = Budget(), 0, 0
    for step in story:
        if step is None:
            allowed = budget.allows()
            assert budget.take() is allowed
            again += allowed
        else:
            budget.earn(step)
            asked += step
        assert 0 <= budget.left <= MOST
        assert again <= MOST + SHARE * asked + 1e-6


class Elsewhere:
    """Each device has a double, whose number is ten more; all of them may be asked."""

    def __init__(self, network: Network, after: float | None) -> None:
        self._network = network
        self._after = after
        self.hedged: list[str] = []
        self.retried: list[str] = []

    def delay(self, route: Route, left: float) -> float | None:
        assert route.device not in self.hedged
        assert left > 0
        return self._after

    def hedge(self, route: Route) -> list[Route]:
        self.hedged.append(route.device)
        return self._double(route)

    async def retry(self, route: Route) -> list[Route]:
        self.retried.append(route.device)
        return self._double(route)

    def _double(self, route: Route) -> list[Route]:
        address = str(int(route.link.address) + 10)
        device = self._network.devices.get(address)
        if device is None:
            return []
        return [replace(route, device=device.id, name=device.name, link=self._network.connect(address))]


delays = st.sampled_from([0.0, 0.05, 0.27, 0.8, 5.0])


@settings(max_examples=60)
@given(
    st.lists(st.tuples(delays, delays, st.booleans(), st.booleans()), min_size=2, max_size=2),
    st.sampled_from([None, 0.1, 0.5]),
)
def test_the_answer_is_the_best_that_can_be_had_in_time(
    bundle: Bundle, fates: list[tuple[float, float, bool, bool]], after: float | None
) -> None:
    """Each device and its double take so long, or their connection breaks."""
    network, _ = fleet_of(bundle)
    for number, (delay, other, breaks, other_breaks) in enumerate(fates):
        device = network.devices[str(number)]
        double = network.devices[str(number + 10)] = FakeDevice(number + 10, bundle)
        double.served, double.version = dict(device.served), device.version
        device.delay, double.delay = delay, other
        device.resets, double.resets = int(breaks), int(other_breaks)
    elsewhere = Elsewhere(network, after)

    async def story() -> tuple[list[DeviceReply], float]:
        start = now()
        routes = [
            Route(device.id, device.name, network.connect(address), tuple(device.served))
            for address, device in network.devices.items()
            if int(address) < 10
        ]
        image = Encoded(picture(bundle))
        replies = await dispatch(bundle.manifest, routes, image, deadline=1.0, elsewhere=elsewhere)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return replies, now() - start

    replies, took = run(story())
    assert took <= 1.0 + 1e-6
    by_submodel = Counter(submodel for reply in replies for submodel in reply.features)
    assert set(by_submodel.values()) <= {1}, "nobody answers twice"
    for number, (delay, other, breaks, other_breaks) in enumerate(fates):
        device, double = network.devices[str(number)], network.devices[str(number + 10)]
        (submodel,) = device.served
        assert len(device.asked) == 1
        assert len(double.asked) <= 1
        alone = not breaks and delay < 1.0
        if breaks:
            reached = not other_breaks and other < 1.0
            assert elsewhere.retried.count(device.id) == 1
        else:
            hedged = after is not None and delay > after
            assert (device.id in elsewhere.hedged) == hedged
            reached = hedged and not other_breaks and (after or 0) + other < 1.0
        assert (submodel in by_submodel) == (alone or reached)


@asynccontextmanager
async def twice_held(bundle: Bundle) -> AsyncIterator[tuple[Aggregator, FakeDevice, FakeDevice, list[Again]]]:
    """The first sub-model is at home at "0", and held by "2" for the time being."""
    network, deployment = fleet_of(bundle)
    home = network.devices["0"]
    holder = network.devices["2"] = FakeDevice(2, bundle)
    holder.served, holder.version = dict(home.served), home.version
    (submodel,) = home.served
    deployment = replace(deployment, devices=tuple(network.announced), moved={submodel: holder.id})
    said: list[Again] = []
    async with Aggregator(
        bundle, deployment, connect=network.connect, browse=False, on_again=said.append
    ) as fleet:
        for device in (home, holder):
            device.asked.clear()
        yield fleet, holder, home, said


def test_a_slow_holder_is_outrun_by_whoever_holds_the_same(bundle: Bundle) -> None:
    async def story() -> None:
        async with twice_held(bundle) as (fleet, holder, home, said):
            for _ in range(20):
                assert (await fleet.classify(picture(bundle))).complete
            assert (len(home.asked), said) == (0, [])
            holder.delay = 30.0
            start = now()
            answer = await fleet.classify(picture(bundle))
            assert answer.complete
            assert now() - start <= 0.1
            assert said == [Again.HEDGE]
            errors = {reply.name: reply.error.code for reply in answer.devices if reply.error}
            assert errors == {"fake-2": "device.slower"}
            assert home.asked[0].request_id == holder.asked[-1].request_id

    run(story())


def test_a_broken_connection_is_made_up_for_by_whoever_holds_the_same(bundle: Bundle) -> None:
    async def story() -> None:
        async with twice_held(bundle) as (fleet, holder, home, said):
            holder.alive = False
            start = now()
            answer = await fleet.classify(picture(bundle))
            assert answer.complete
            assert now() == start, "nothing is waited for"
            assert (len(home.asked), said) == (1, [Again.RETRY])

    run(story())


def test_when_the_budget_is_used_up_nobody_is_asked_again_and_it_is_counted(bundle: Bundle) -> None:
    async def story() -> None:
        async with twice_held(bundle) as (fleet, holder, home, said):
            holder.delay = 0.4
            members = fleet.members[holder.id]
            for _ in range(200):
                await fleet.classify(picture(bundle), deadline=0.9)
                assert members.asked is not None
            counts = Counter(said)
            assert counts[Again.HEDGE] == len(home.asked)
            assert counts[Again.HEDGE] <= MOST + SHARE * 200 * len(fleet.members)
            assert counts[Again.HEDGE] > 20

    run(story())


def test_a_late_answer_of_one_that_was_outrun_changes_nothing(bundle: Bundle) -> None:
    """Its reply comes after the next picture was asked."""

    async def story() -> None:
        async with twice_held(bundle) as (fleet, holder, _, said):
            for _ in range(20):
                await fleet.classify(picture(bundle))
            before = await fleet.classify(picture(bundle))
            holder.delay = 0.2
            answers = []
            for _ in range(5):
                answers.append(await fleet.classify(picture(bundle)))
                await asyncio.sleep(0.05)
            assert all(answer.complete for answer in answers)
            assert {answer.probabilities for answer in answers} == {before.probabilities}
            assert Again.HEDGE in said

    run(story())


def test_a_link_that_breaks_while_another_is_asked_costs_nothing_more(bundle: Bundle) -> None:
    network, _ = fleet_of(bundle)
    device = network.devices["0"]
    double = network.devices["10"] = FakeDevice(10, bundle)
    double.served, double.delay = dict(device.served), 0.3

    class Breaking:
        address = "0"

        async def infer(self, request: InferRequest, *, timeout: float, rest: bytes = b"") -> InferReply:
            del request, timeout, rest
            await asyncio.sleep(0.2)
            raise LinkError("it broke")

    async def story() -> None:
        route = Route(device.id, device.name, Breaking(), tuple(device.served))  # type: ignore[arg-type]
        elsewhere = Elsewhere(network, 0.1)
        image = Encoded(picture(bundle))
        replies = await dispatch(bundle.manifest, [route], image, deadline=1.0, elsewhere=elsewhere)
        assert [bool(reply.features) for reply in replies] == [False, True]
        assert (elsewhere.hedged, elsewhere.retried) == ([device.id], [])

    run(story())
