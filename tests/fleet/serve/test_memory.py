"""A hundred thousand pictures leave nothing behind."""

import asyncio
from pathlib import Path

import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.fleet import Aggregator
from edvit_tf.fleet.serve.front import Bounds, Front
from edvit_tf.fleet.serve.metrics import Metrics
from tests.fleet.fakes import fleet_of
from tests.fleet.serve.asked import png

MOST_GROWTH_BYTES = 8 << 20
AT_ONCE = 8


def resident() -> int:
    """Bytes of this process's memory."""
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in status if line.startswith("VmRSS")).split()[1])


@pytest.mark.parametrize(
    "pictures",
    [2_000, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
async def test_memory_is_flat(bundle: Bundle, pictures: int) -> None:
    network, deployment = fleet_of(bundle)
    data = png(bundle)
    async with Aggregator(bundle, deployment, connect=network.connect, browse=False) as aggregator:
        front = Front(lambda: aggregator, Bounds(), Metrics(aggregator.status))

        async def some(number: int) -> None:
            for _ in range(number // AT_ONCE):
                with front.admitted("http") as admitted:
                    assert (await front.classify(admitted, data)).answer.complete
                for device in network.devices.values():
                    device.asked.clear()

        await asyncio.gather(*(some(pictures // 5) for _ in range(AT_ONCE)))
        before, tasks = resident(), len(asyncio.all_tasks())
        await asyncio.gather(*(some(pictures) for _ in range(AT_ONCE)))
        assert resident() - before < MOST_GROWTH_BYTES
        assert len(asyncio.all_tasks()) == tasks
        await front.stop(1.0)
