"""The whole fleet without a socket, on a clock that jumps."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import DeadlineError
from edvit_tf.fleet import Aggregator
from edvit_tf.fleet.budget import Budget
from edvit_tf.rpc.edvit_pb2 import InferReply
from tests.fleet.clock import now, run
from tests.fleet.fakes import Network, fleet_of, picture


@asynccontextmanager
async def aggregator(bundle: Bundle) -> AsyncIterator[tuple[Aggregator, Network]]:
    network, deployment = fleet_of(bundle)
    async with Aggregator(bundle, deployment, connect=network.connect, browse=False) as made:
        yield made, network


def test_all_devices_give_a_complete_answer(bundle: Bundle) -> None:
    async def story() -> None:
        async with aggregator(bundle) as (fleet, network):
            answer = await fleet.classify(picture(bundle))
            assert answer.complete
            assert answer.answered == answer.expected == len(network.devices)
            assert (answer.missing, answer.weak_classes) == ((), ())
            assert answer.label in bundle.manifest.classes
            assert sum(answer.probabilities) == pytest.approx(1.0, abs=1e-5)
            assert {row.state for row in fleet.status()} == {"up"}

    run(story())


def test_a_device_that_dies_costs_one_deadline_at_most_and_is_flagged(bundle: Bundle) -> None:
    async def story() -> None:
        async with aggregator(bundle) as (fleet, network):
            dead = network.devices["0"]
            dead.delay = 1000.0
            start = now()
            first = await fleet.classify(picture(bundle))
            assert now() - start <= 2.1
            assert not first.complete
            assert first.missing == tuple(dead.served)
            assert set(first.weak_classes) <= set(bundle.manifest.submodel(first.missing[0]).classes)
            start = now()
            again = await fleet.classify(picture(bundle))
            assert now() - start < 0.1, "a device that is down is not waited for"
            assert again.probabilities == first.probabilities
            (row,) = [row for row in fleet.status() if row.state == "suspect"]
            assert "did not answer" in row.reason
            await asyncio.sleep(4.0)
            (row,) = [row for row in fleet.status() if row.state == "down"]
            assert "did not answer" in row.reason
            dead.delay = 0.0
            assert await fleet.complete(10.0)
            assert (await fleet.classify(picture(bundle))).complete

    run(story())


def test_nobody_answers_is_a_deadline_error_with_reasons(bundle: Bundle) -> None:
    async def story() -> None:
        async with aggregator(bundle) as (fleet, network):
            for device in network.devices.values():
                device.alive = False
            for _ in range(2):
                with pytest.raises(DeadlineError, match="fake-0 is down: the wire is cut"):
                    await fleet.classify(picture(bundle))

    run(story())


def test_a_device_that_lost_its_sub_model_gets_it_again(bundle: Bundle) -> None:
    async def story() -> None:
        async with aggregator(bundle) as (fleet, network):
            device = network.devices["0"]
            device.served, device.version = {}, 0
            degraded = await fleet.classify(picture(bundle))
            assert not degraded.complete
            assert await fleet.complete(10.0)
            assert device.installs == len(bundle.manifest.submodels[0].variants)
            assert (await fleet.classify(picture(bundle))).complete

    run(story())


def test_a_device_that_answers_garbage_is_refused_and_said_so(bundle: Bundle) -> None:
    def spoil(reply: InferReply) -> None:
        reply.outputs[0].feature = b"\xff" * len(reply.outputs[0].feature)

    async def story() -> None:
        async with aggregator(bundle) as (fleet, network):
            network.devices["1"].spoil = spoil
            answer = await fleet.classify(picture(bundle))
            assert answer.answered == answer.expected - 1
            (row,) = [row for row in fleet.status() if row.state == "refused"]
            assert row.name == "fake-1"
            assert "not finite" in row.reason

    run(story())


@pytest.mark.fault
def test_a_device_that_answers_with_another_models_features_is_refused_and_said_so(bundle: Bundle) -> None:
    """Their shape is right and it says that it holds what it should: only the test vector tells."""

    async def story() -> None:
        network, deployment = fleet_of(bundle)
        liar = network.devices["1"]
        random = np.random.default_rng(5)

        def of_another_model(reply: InferReply) -> None:
            size = len(reply.outputs[0].feature) // 4
            reply.outputs[0].feature = random.normal(size=size).astype("<f4").tobytes()

        liar.spoil = of_another_model
        async with Aggregator(bundle, deployment, connect=network.connect, browse=False) as fleet:
            answer = await fleet.classify(picture(bundle))
            assert answer.missing == tuple(liar.served)
            (row,) = [row for row in fleet.status() if row.state == "refused"]
            assert row.name == "fake-1"
            assert "answers the test vector of submodel-1 wrongly" in row.reason
            assert {request.picture.data for request in liar.asked} == {
                bundle.vector(bundle.manifest.submodel("submodel-1").variants[0]).image.tobytes()
            }, "it has not been asked about anybody's picture"
            liar.spoil = None
            assert await fleet.complete(60.0)

    run(story())


def test_a_connection_that_breaks_is_made_again_within_the_answer(bundle: Bundle) -> None:
    async def story() -> None:
        async with aggregator(bundle) as (fleet, network):
            device = network.devices["0"]
            await asyncio.sleep(1.0)
            device.resets = 1
            start, before = now(), len(device.asked)
            answer = await fleet.classify(picture(bundle))
            assert answer.complete
            assert now() - start < 0.3
            first, _, second = device.asked[before:]  # between them it proves itself anew
            assert first.request_id == second.request_id

    run(story())


def test_one_that_is_gone_is_not_waited_for(bundle: Bundle) -> None:
    async def story() -> None:
        async with aggregator(bundle) as (fleet, network):
            network.devices["0"].alive = False
            start = now()
            assert not (await fleet.classify(picture(bundle))).complete
            assert now() - start <= 0.31
            start = now()
            assert not (await fleet.classify(picture(bundle))).complete
            assert now() == start, "it is not asked any more"

    run(story())


def test_what_is_asked_twice_is_a_tenth_and_not_all_at_once() -> None:
    budget = Budget()
    assert sum(budget.take() for _ in range(100)) == 10
    twice = 0
    for _ in range(1000):
        budget.earn(2)
        twice += budget.take()
    assert 199 <= twice <= 200
    budget.earn(10**6)
    assert sum(budget.take() for _ in range(100)) == 10


def test_it_starts_with_a_device_missing(bundle: Bundle) -> None:
    async def story() -> None:
        network, deployment = fleet_of(bundle)
        network.devices["0"].alive = False
        start = now()
        async with Aggregator(bundle, deployment, connect=network.connect, browse=False) as fleet:
            assert now() - start <= 2.1
            answer = await fleet.classify(picture(bundle))
            assert answer.answered == answer.expected - 1

    run(story())


def test_many_pictures_at_once(bundle: Bundle) -> None:
    async def story() -> None:
        async with aggregator(bundle) as (fleet, _):
            images = [picture(bundle, seed) for seed in range(20)]
            answers = await asyncio.gather(*map(fleet.classify, images))
            assert all(answer.complete for answer in answers)

    run(story())


def test_nothing_is_left_running(bundle: Bundle) -> None:
    async def story() -> None:
        async with aggregator(bundle):
            pass
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(story())
