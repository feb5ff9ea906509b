"""Flatbuffers side by side: whether each works here, its bytes, and its time against the others'.

What cannot be loaded or answers wrongly is found in a child process first, so that a bad file costs a row of
the table and not the benchmark.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edvit_tf.runtime.check import probe_in_child, verify_in_child
from edvit_tf.runtime.interpreter import Flatbuffer
from edvit_tf.runtime.measure import Latency, measure_interleaved

Status = Literal["ok", "invalid", "failed"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A flatbuffer to measure.

    Attributes:
        name: as it stands in the table.
        file: the flatbuffer.
        vector: its test vector; without one it is only tried on a grey picture.
        accuracy: a fraction of pictures, where it is known.
        whole: it is the whole model, which the others are compared with.
    """

    name: str
    file: Path
    vector: Path | None = None
    accuracy: float | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """What was found of one flatbuffer.

    `status` is "ok", "invalid" (it runs and answers wrongly) or "failed" (it cannot be loaded or run), and
    `reason` one sentence when it is not "ok". `latency` and `partitions` are None then.
    """

    candidate: Candidate
    bytes: int
    status: Status
    reason: str
    latency: Latency | None = None
    partitions: int | None = None


def benchmark(
    candidates: Sequence[Candidate],
    *,
    threads: int = 1,
    rounds: int = 10,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Row]:
    """Check each flatbuffer, then measure all that work, in interleaved rounds.

    Args:
        candidates: with names that differ.
        threads: threads of one call.
        rounds: turns that each has.
        progress: told the number of rounds that are done.
    """
    checked = [_check(candidate) for candidate in candidates]
    loaded = {
        row.candidate.name: Flatbuffer(row.candidate.file, threads=threads)
        for row in checked
        if row.status == "ok"
    }
    tasks = {name: _task(flatbuffer) for name, flatbuffer in loaded.items()}
    latencies = measure_interleaved(tasks, rounds=rounds, progress=progress)
    return [
        Row(
            row.candidate,
            row.bytes,
            row.status,
            row.reason,
            latencies.get(row.candidate.name),
            loaded[row.candidate.name].delegate_partitions() if row.status == "ok" else None,
        )
        for row in checked
    ]


def _check(candidate: Candidate) -> Row:
    size = candidate.file.stat().st_size
    tried = probe_in_child(candidate.file)
    if not tried.ok:
        return Row(candidate, size, "failed", tried.reason)
    if candidate.vector is not None:
        verdict = verify_in_child(candidate.file, candidate.vector)
        if not verdict.ok:
            return Row(candidate, size, "invalid", verdict.reason)
    return Row(candidate, size, "ok", "")


def _task(flatbuffer: Flatbuffer) -> Callable[[], object]:
    # Noise, not grey: on constant pictures all tokens are equal, and some kernels take short cuts.
    shape = flatbuffer.inputs[0].shape[1:]
    image: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return lambda: flatbuffer.run(image)


def fastest(rows: Sequence[Row]) -> Row | None:
    """Return the row with the smallest minimum, or None when nothing was measured."""
    measured = [row for row in rows if row.latency is not None]
    return min(measured, key=_minimum) if measured else None


def _minimum(row: Row) -> float:
    return row.latency.min_ms if row.latency is not None else float("inf")
