"""What stands between the ways in and the aggregator, without either."""

import asyncio

import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.bundle.sample import decode_sample
from edvit_tf.fleet import Aggregator
from edvit_tf.fleet.serve import front as front_module
from edvit_tf.fleet.serve.front import Bounds, Front
from edvit_tf.fleet.serve.metrics import Metrics
from tests.fleet.fakes import fleet_of
from tests.fleet.serve.asked import png


async def test_an_aggregator_that_is_replaced_answers_what_it_was_given_before(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, deployment = fleet_of(bundle)
    aggregator = Aggregator(bundle, deployment, connect=network.connect, browse=False)
    await aggregator.__aenter__()
    front = Front(lambda: aggregator, Bounds(), Metrics(aggregator.status))
    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []

    def replaced_meanwhile(*arguments: object) -> object:
        async def stop() -> None:
            stopping.append(asyncio.create_task(aggregator.__aexit__(None, None, None)))
            await asyncio.sleep(0.1)

        asyncio.run_coroutine_threadsafe(stop(), loop).result(5)
        return decode_sample(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(front_module, "decode_sample", replaced_meanwhile)
    with front.admitted("test") as request:
        result = await front.classify(request, png(bundle))
    assert result.answer.complete
    await stopping[0]
