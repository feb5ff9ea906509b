"""Latency percentiles."""

import numpy as np
import pytest

from edvit_tf.runtime.interpreter import Flatbuffer
from edvit_tf.runtime.measure import measure, summarise
from tests.runtime.golden import SUBMODEL


def test_percentiles() -> None:
    latency = summarise([float(number) for number in range(101)])
    assert (latency.p50_ms, latency.p95_ms, latency.runs) == (50, 95, 101)


def test_no_times_have_no_percentiles() -> None:
    with pytest.raises(ValueError, match="no times"):
        summarise([])


def test_a_run_takes_time() -> None:
    latency = measure(Flatbuffer(SUBMODEL), np.zeros((8, 8, 1), np.uint8), runs=7, warm_up=1)
    assert latency.runs == 7
    assert 0 < latency.p50_ms <= latency.p95_ms < 1000
