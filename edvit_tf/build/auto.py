"""`--format auto`: every candidate is made and measured, and the fastest that is good enough comes first.

No TensorFlow.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Protocol

import numpy as np
from edvit_converters.formats import find

from edvit_tf.build.settings import ExportSettings
from edvit_tf.build.store import Result
from edvit_tf.build.work import Fused, MadeSubmodel
from edvit_tf.bundle.reader import Bundle
from edvit_tf.bundle.tried import Measured, Tried
from edvit_tf.errors import PlanError
from edvit_tf.runtime.interpreter import Flatbuffer
from edvit_tf.runtime.measure import measure_interleaved

_ROUNDS = 10
_SAME_TIME = 1.03  # times that differ by less are equal, and the smaller file wins
_LOSS = 0.005  # of fused accuracy against the best candidate, where no floor is given
_MEGABYTE = 1_000_000
_OLDEST_RUNTIME = "tflite-runtime"


class Measurers(Protocol):
    """The devices that are to run what is exported, and can say how fast they run it."""

    @property
    def keys(self) -> Sequence[str]:
        """What tells these devices, with what runs on them, from others."""
        ...

    def measure(self, candidates: Bundle, submodel: str) -> Mapping[str, tuple[Measured, ...]]:
        """What each device says of a sub-model in each of its variants, by format."""
        ...


def try_formats(
    settings: ExportSettings,
    submodels: Sequence[MadeSubmodel],
    fused: Mapping[str, Fused],
    result: Result,
    on_devices: Callable[[], Mapping[str, tuple[Measured, ...]]] | None = None,
) -> None:
    """Measure every format of the sub-models, and keep what was found.

    Without `on_devices` it is measured here, in interleaved rounds.
    """
    places = on_devices() if on_devices is not None else {}
    here = {} if places else _measure_here(submodels, list(fused))
    found = []
    for name, reached in fused.items():
        variants = [part.variants[name] for part in submodels]
        sizes = [variant.flatbuffer.stat().st_size for variant in variants]
        needed = [2 * size + variant.arena_bytes for size, variant in zip(sizes, variants, strict=True)]
        candidate = Tried(
            name, max(sizes), max(needed), here.get(name), reached.accuracy, devices=places.get(name, ())
        )
        found.append(replace(candidate, ms=max(candidate.times.values(), default=None)))
    judged = judge(found, floor=settings.floor, memory_mb=settings.memory_mb)
    result.write_facts({"tried": [asdict(candidate) for candidate in judged]})


def _measure_here(submodels: Sequence[MadeSubmodel], formats: Sequence[str]) -> dict[str, float]:
    """The slowest sub-model's fastest run in milliseconds, by format."""
    loaded = {
        (name, part.name): Flatbuffer(part.variants[name].flatbuffer)
        for name in formats
        for part in submodels
    }
    shape = next(iter(loaded.values())).inputs[0].shape[1:]
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    tasks = {
        f"{name}/{part}": (lambda model=model: model.run(image)) for (name, part), model in loaded.items()
    }
    times = measure_interleaved(tasks, rounds=_ROUNDS)
    return {name: max(times[f"{name}/{part.name}"].min_ms for part in submodels) for name in formats}


def judge(found: Sequence[Tried], *, floor: float | None, memory_mb: float | None) -> list[Tried]:
    """The candidates, the one to prefer first, with a reason at each that is not kept.

    Kept are those that hold the floor and fit, and are the fastest on some device, the one of most devices
    first. Where none of them is right in the last interpreter of 32-bit Arm, the fastest one that is comes
    last.

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
        elif not candidate.times:
            said = "; ".join(f"{one.name}: {one.reason}" for one in candidate.devices)
            reasons[candidate.format] = f"no device ran it ({said})"
    good = [candidate for candidate in found if candidate.format not in reasons]
    if not good:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise PlanError(f"no format is good enough: {why}; lower --floor, train longer, or keep more heads")
    devices = dict.fromkeys(device for candidate in good for device in candidate.times)
    votes = Counter(_fastest(good, device).format for device in devices)
    kept = [name for name, _ in votes.most_common()]
    beaten = f"{' or '.join(kept)} is faster or smaller"
    old = [candidate for candidate in good if _OLDEST_RUNTIME in find(candidate.format).runtimes]
    if old and not any(candidate.format in kept for candidate in old):
        kept.append(_fastest([replace(candidate, devices=()) for candidate in old], "").format)
    by_name = {candidate.format: candidate for candidate in found}
    rest = [
        replace(candidate, reason=reasons.get(name, beaten))
        for name, candidate in by_name.items()
        if name not in kept
    ]
    return [*(by_name[name] for name in kept), *rest]


def _fastest(candidates: Sequence[Tried], device: str) -> Tried:
    """The fastest on a device; of those that take as long as the fastest there, the smallest."""
    there = [candidate for candidate in candidates if device in candidate.times]
    limit = _SAME_TIME * min(candidate.times[device] for candidate in there)
    return min((one for one in there if one.times[device] <= limit), key=lambda one: one.bytes)
