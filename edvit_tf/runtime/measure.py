"""How long one picture takes."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edvit_tf.runtime.interpreter import Flatbuffer

Clock = Callable[[], int]

_TURN_SECONDS = 0.1
_LARGEST_TURN = 50


@dataclass(frozen=True, slots=True)
class Latency:
    """The fastest of `runs` pictures and their percentiles, in milliseconds."""

    min_ms: float
    p50_ms: float
    p95_ms: float
    runs: int


def summarise(milliseconds: Sequence[float]) -> Latency:
    """Return the minimum and the percentiles of some measured times.

    Raises:
        ValueError: there are none.
    """
    if not milliseconds:
        raise ValueError("no times to summarise")
    p50, p95 = np.percentile(np.asarray(milliseconds, np.float64), [50, 95])
    return Latency(float(min(milliseconds)), float(p50), float(p95), len(milliseconds))


def measure(flatbuffer: Flatbuffer, image: NDArray[np.uint8], *, runs: int = 50, warm_up: int = 5) -> Latency:
    """Time a loaded sub-model on one picture uint8 [h, w, c]; the first `warm_up` runs do not count."""
    for _ in range(warm_up):
        flatbuffer.run(image)
    return summarise([_milliseconds(lambda: flatbuffer.run(image)) for _ in range(runs)])


def measure_interleaved(
    tasks: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    progress: Callable[[int], None] = lambda _: None,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, Latency]:
    """Time several tasks against each other: in every round each has a turn, so that all meet the same noise.

    A turn is some tenth of a second, at least two runs. Its first run does not count: the tasks before have
    emptied the processor's caches, which does not happen to a model that runs alone.

    Args:
        tasks: what to run, by name.
        rounds: how many turns each has, at least 1.
        progress: told the number of rounds that are done.
        clock: what tells the time, in nanoseconds.

    Raises:
        ValueError: no round is asked for.
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    # Two runs before: the first one of all allocates.
    runs = {
        name: _runs_of_a_turn(min(_milliseconds(task), _milliseconds(task))) for name, task in tasks.items()
    }
    for done in range(1, rounds + 1):
        for name, task in tasks.items():
            task()
            times[name] += [_milliseconds(task, clock) for _ in range(runs[name])]
        progress(done)
    return {name: summarise(measured) for name, measured in times.items()}


def _runs_of_a_turn(milliseconds: float) -> int:
    return min(_LARGEST_TURN, max(1, round(1e3 * _TURN_SECONDS / max(milliseconds, 1e-3))))


def _milliseconds(task: Callable[[], object], clock: Clock = time.perf_counter_ns) -> float:
    start = clock()
    task()
    return (clock() - start) / 1e6
