"""How long one picture takes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edvit_tf.runtime.interpreter import Flatbuffer


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles over `runs` pictures, in milliseconds."""

    p50_ms: float
    p95_ms: float
    runs: int


def summarise(milliseconds: Sequence[float]) -> Latency:
    """Return the percentiles of some measured times.

    Raises:
        ValueError: there are none.
    """
    if not milliseconds:
        raise ValueError("no times to summarise")
    p50, p95 = np.percentile(np.asarray(milliseconds, np.float64), [50, 95])
    return Latency(float(p50), float(p95), len(milliseconds))


def measure(flatbuffer: Flatbuffer, image: NDArray[np.uint8], *, runs: int = 50, warm_up: int = 5) -> Latency:
    """Time a loaded sub-model on one picture uint8 [h, w, c]; the first `warm_up` runs do not count."""
    for _ in range(warm_up):
        flatbuffer.run(image)
    times = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        flatbuffer.run(image)
        times.append((time.perf_counter_ns() - start) / 1e6)
    return summarise(times)
