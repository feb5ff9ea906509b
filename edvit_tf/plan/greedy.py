"""The paper's greedy assignment of sub-models to devices (ED-ViT, arXiv 2410.11650).

Sub-models are taken by falling cost; each goes to the device with the most energy left whose memory holds it.
Energy is operations times the device's joules per operation; memory is flatbuffer and arena. A device that
has taken one sub-model has less energy left, so that equal devices get one each before any gets two.

When a sub-model fits nowhere, the paper prunes it one head further and starts again. Pruning is the export's
part, so this function says which sub-model it was and stops. The greedy is not optimal: it may find nothing
where an exhaustive search would.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from edvit_tf.errors import PlanError

_MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Work:
    """A sub-model to be placed: multiply-accumulates for one image, and bytes of flatbuffer and arena.

    Raises:
        PlanError: a number is negative.
    """

    id: str
    macs: int
    memory_bytes: int

    def __post_init__(self) -> None:
        _require("sub-model", self.id, self.macs, self.memory_bytes)


@dataclass(frozen=True, slots=True)
class Place:
    """A device: bytes that are free, joules that may be spent on an image, joules for a multiply-accumulate.

    `energy_joules` may be infinite (a device on the mains), which comes before any battery.

    Raises:
        PlanError: a number is negative or not a number, or `joules_per_mac` is infinite.
    """

    id: str
    memory_bytes: int
    energy_joules: float
    joules_per_mac: float

    def __post_init__(self) -> None:
        _require("device", self.id, self.memory_bytes, self.energy_joules, self.joules_per_mac)
        if math.isinf(self.joules_per_mac):
            raise PlanError(
                f"The device {self.id} has infinite joules per operation: give a measured figure."
            )

    def cost(self, work: Work) -> float:
        """Joules that a work takes here for one image."""
        return work.macs * self.joules_per_mac


@dataclass(frozen=True, slots=True)
class Placement:
    """`assignment`: the id of the place for each work's id; `energy_left`: joules by place."""

    assignment: dict[str, str]
    energy_left: dict[str, float]


def greedy(works: Iterable[Work], places: Iterable[Place]) -> Placement:
    """Give each work to the place with the most energy left that has the memory and the energy for it.

    Ties go to the place with more memory left, then by id, so that the order of the arguments never matters.

    Raises:
        PlanError: an id is there twice (`plan.duplicate`), there is no place at all (`plan.no_devices`), or a
            work fits nowhere for want of memory (`plan.memory`) or of energy (`plan.energy`).
    """
    falling = sorted(works, key=lambda work: (-work.macs, -work.memory_bytes, work.id))
    devices = sorted(places, key=lambda place: place.id)
    _require_unique("sub-model", [work.id for work in falling])
    _require_unique("device", [place.id for place in devices])
    memory = {place.id: place.memory_bytes for place in devices}
    energy = {place.id: place.energy_joules for place in devices}
    assignment: dict[str, str] = {}
    for work in falling:
        roomy = [place for place in devices if memory[place.id] >= work.memory_bytes]
        able = [place for place in roomy if energy[place.id] >= place.cost(work)]
        if not able:
            raise _nowhere(work, roomy, memory, energy)
        # max keeps the first of equals, and devices stand in the order of their ids.
        best = max(able, key=lambda place: (energy[place.id], memory[place.id]))
        assignment[work.id] = best.id
        memory[best.id] -= work.memory_bytes
        energy[best.id] -= best.cost(work)
    return Placement(assignment=assignment, energy_left=energy)


def _nowhere(work: Work, roomy: list[Place], memory: dict[str, int], energy: dict[str, float]) -> PlanError:
    if not memory:
        return PlanError(
            f"There is no device for {work.id}: start one with edvit-tf device run.", code="plan.no_devices"
        )
    if not roomy:
        largest = max(memory, key=lambda place: memory[place])
        return PlanError(
            f"{work.id} needs {work.memory_bytes / _MEGABYTE:.1f} MB and the device with the most memory "
            f"left, {largest}, has {memory[largest] / _MEGABYTE:.1f} MB: export with fewer heads or for more "
            "devices, add a device, or raise --memory-mb on one.",
            code="plan.memory",
        )
    strongest = max(roomy, key=lambda place: energy[place.id] - place.cost(work))
    return PlanError(
        f"{work.id} takes {strongest.cost(work):.3g} J an image and the best device with the memory for it, "
        f"{strongest.id}, has {energy[strongest.id]:.3g} J left: export with fewer heads or for more "
        "devices, or add a device.",
        code="plan.energy",
    )


def _require(kind: str, name: str, *numbers: float) -> None:
    if not all(number >= 0 for number in numbers):  # false for NaN too
        raise PlanError(f"The {kind} {name} has a negative cost, memory or energy: give real figures.")


def _require_unique(kind: str, ids: list[str]) -> None:
    for name in ids:
        if ids.count(name) > 1:
            raise PlanError(
                f"Two of the {kind}s are called {name}: give each a name of its own.", code="plan.duplicate"
            )
