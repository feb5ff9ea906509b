"""`--format auto`: every candidate is made and measured, and the fastest that is good enough comes first.

No TensorFlow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from edvit_converters.formats import find

from edvit_tf.build.settings import ExportSettings
from edvit_tf.build.store import Result
from edvit_tf.build.work import Fused, MadeSubmodel
from edvit_tf.errors import PlanError
from edvit_tf.runtime.interpreter import Flatbuffer
from edvit_tf.runtime.measure import measure_interleaved

_ROUNDS = 10
_SAME_TIME = 1.03  # times that differ by less are equal, and the smaller file wins
_LOSS = 0.005  # of fused accuracy against the best candidate, where no floor is given
_MEGABYTE = 1_000_000
_OLDEST_RUNTIME = "tflite-runtime"


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate of `--format auto`: what was found, and why it was not kept (empty when it was).

    `bytes` and `memory_bytes` are the largest sub-model's, `ms` is the slowest one's fastest run here, and
    `accuracy` the fused one on validation.
    """

    format: str
    bytes: int
    memory_bytes: int
    ms: float
    accuracy: float
    reason: str = ""


def try_formats(
    settings: ExportSettings, submodels: Sequence[MadeSubmodel], fused: Mapping[str, Fused], result: Result
) -> None:
    """Measure every format of the sub-models here, in interleaved rounds, and keep what was found."""
    loaded = {
        (name, part.name): Flatbuffer(part.variants[name].flatbuffer) for name in fused for part in submodels
    }
    shape = next(iter(loaded.values())).inputs[0].shape[1:]
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    tasks = {
        f"{name}/{part}": (lambda model=model: model.run(image)) for (name, part), model in loaded.items()
    }
    times = measure_interleaved(tasks, rounds=_ROUNDS)
    found = []
    for name, reached in fused.items():
        variants = [part.variants[name] for part in submodels]
        sizes = [variant.flatbuffer.stat().st_size for variant in variants]
        needed = [2 * size + variant.arena_bytes for size, variant in zip(sizes, variants, strict=True)]
        slowest = max(times[f"{name}/{part.name}"].min_ms for part in submodels)
        found.append(Tried(name, max(sizes), max(needed), slowest, reached.accuracy))
    judged = judge(found, floor=settings.floor, memory_mb=settings.memory_mb)
    result.write_facts({"tried": [asdict(candidate) for candidate in judged]})


def judge(found: Sequence[Tried], *, floor: float | None, memory_mb: float | None) -> list[Tried]:
    """The candidates, the one to prefer first, with a reason at each that is not kept.

    Kept are the fastest one that holds the floor and fits, and, where that is not right in the last
    interpreter of 32-bit Arm, the fastest one that is.

    Args:
        found: the candidates.
        floor: the least fused accuracy; by default half a point below the best one's.
        memory_mb: what a device has; None when unknown.

    Raises:
        PlanError: none holds the floor and fits.
    """
    least = max(candidate.accuracy for candidate in found) - _LOSS if floor is None else floor
    reasons = {}
    for candidate in found:
        if candidate.accuracy < least:
            reasons[candidate.format] = f"accuracy {candidate.accuracy:.2%}, at least {least:.2%} is wanted"
        elif memory_mb is not None and candidate.memory_bytes > memory_mb * _MEGABYTE:
            needed = candidate.memory_bytes / _MEGABYTE
            reasons[candidate.format] = f"it needs {needed:.1f} MB and a device has {memory_mb:g}"
    good = _by_time([candidate for candidate in found if candidate.format not in reasons])
    if not good:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise PlanError(f"no format is good enough: {why}; lower --floor, train longer, or keep more heads")
    old = [candidate for candidate in good if _OLDEST_RUNTIME in find(candidate.format).runtimes]
    kept = list(dict.fromkeys([good[0], *old[:1]]))
    rest = [
        Tried(
            **asdict(candidate)
            | {"reason": reasons.get(candidate.format, f"{kept[0].format} is faster or smaller")}
        )
        for candidate in found
        if candidate not in kept
    ]
    return [*kept, *rest]


def _by_time(candidates: Sequence[Tried]) -> list[Tried]:
    """Fastest first; of those that take as long as the fastest, the smallest."""
    if not candidates:
        return []
    limit = _SAME_TIME * min(candidate.ms for candidate in candidates)
    return sorted(candidates, key=lambda one: (one.ms > limit, one.bytes if one.ms <= limit else one.ms))
