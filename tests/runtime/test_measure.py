"""Latency percentiles."""

import time

import numpy as np
import pytest

from edvit_tf.runtime.interpreter import Flatbuffer
from edvit_tf.runtime.measure import measure, measure_interleaved, summarise
from tests.runtime.golden import SUBMODEL


def test_percentiles() -> None:
    latency = summarise([float(number) for number in range(101)])
    assert (latency.min_ms, latency.p50_ms, latency.p95_ms, latency.runs) == (0, 50, 95, 101)


def test_no_times_have_no_percentiles() -> None:
    with pytest.raises(ValueError, match="no times"):
        summarise([])


def test_a_run_takes_time() -> None:
    latency = measure(Flatbuffer(SUBMODEL), np.zeros((8, 8, 1), np.uint8), runs=7, warm_up=1)
    assert latency.runs == 7
    assert 0 < latency.p50_ms <= latency.p95_ms < 1000


def test_tasks_take_turns_and_a_slow_one_is_seen_as_slow() -> None:
    order: list[str] = []

    def task(name: str, seconds: float) -> None:
        order.append(name)
        time.sleep(seconds)

    done: list[int] = []
    found = measure_interleaved(
        {"slow": lambda: task("slow", 0.06), "quick": lambda: task("quick", 0.02)},
        rounds=2,
        progress=done.append,
    )
    assert done == [1, 2]
    assert found["slow"].min_ms > 2 * found["quick"].min_ms
    turns = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    assert turns == ["slow", "quick"] * 3  # sizing the turns, then two rounds


def test_another_clock_tells_the_time() -> None:
    found = measure_interleaved({"asleep": lambda: time.sleep(0.02)}, rounds=2, clock=time.process_time_ns)
    assert found["asleep"].p50_ms < 10
