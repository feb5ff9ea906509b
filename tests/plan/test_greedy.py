"""The paper's greedy: what must hold for any works and places, and what it says when nothing fits."""

import math
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edvit_tf.errors import PlanError
from edvit_tf.plan.greedy import Place, Placement, Work, greedy

MEGABYTE = 1_000_000


@st.composite
def fleets(draw: st.DrawFn) -> tuple[list[Work], list[Place]]:
    works = [
        Work(f"submodel-{i}", draw(st.integers(0, 50)), draw(st.integers(0, 50)))
        for i in range(draw(st.integers(0, 8)))
    ]
    places = [
        Place(
            f"device-{i}",
            draw(st.integers(0, 120)),
            draw(st.floats(0, 200) | st.just(math.inf)),
            draw(st.sampled_from([0.0, 0.5, 1.0, 3.0])),
        )
        for i in range(draw(st.integers(1, 5)))
    ]
    return works, places


def placed(works: list[Work], places: list[Place]) -> Placement:
    try:
        return greedy(works, places)
    except PlanError:
        assume(False)
        raise


@given(fleets())
def test_every_work_stands_once_and_no_place_gives_more_than_it_has(
    fleet: tuple[list[Work], list[Place]],
) -> None:
    works, places = fleet
    placement = placed(works, places)
    assert placement.assignment.keys() == {work.id for work in works}
    for place in places:
        here = [work for work in works if placement.assignment[work.id] == place.id]
        assert sum(work.memory_bytes for work in here) <= place.memory_bytes
        spent = sum(place.cost(work) for work in here)
        assert placement.energy_left[place.id] >= 0
        if math.isfinite(place.energy_joules):
            assert placement.energy_left[place.id] == pytest.approx(place.energy_joules - spent)


@given(fleets(), st.randoms())
def test_the_order_of_the_arguments_never_matters(
    fleet: tuple[list[Work], list[Place]], shuffler: random.Random
) -> None:
    works, places = fleet
    placement = placed(works, places)
    shuffler.shuffle(works)
    shuffler.shuffle(places)
    assert greedy(works, places) == placement


@given(fleets())
def test_the_costliest_work_gets_the_most_energy_that_has_room(fleet: tuple[list[Work], list[Place]]) -> None:
    works, places = fleet
    assume(works)
    placement = placed(works, places)
    first = max(works, key=lambda work: (work.macs, work.memory_bytes))
    assume(sum(work.macs == first.macs and work.memory_bytes == first.memory_bytes for work in works) == 1)
    able = [p for p in places if p.memory_bytes >= first.memory_bytes and p.energy_joules >= p.cost(first)]
    chosen = next(place for place in places if place.id == placement.assignment[first.id])
    assert chosen.energy_joules == max(place.energy_joules for place in able)


@pytest.mark.parametrize("energy", [1000.0, math.inf])
def test_equal_devices_get_one_each_before_any_gets_two(energy: float) -> None:
    works = [Work(f"submodel-{i}", 100, 5 * MEGABYTE) for i in range(3)]
    places = [Place(f"device-{i}", 100 * MEGABYTE, energy, 1e-9) for i in range(3)]
    assert greedy(works, places).assignment == {f"submodel-{i}": f"device-{i}" for i in range(3)}


def test_falling_cost_and_most_energy_left_by_hand() -> None:
    works = [Work("small", 10, 1), Work("large", 30, 1), Work("middle", 20, 1)]
    places = [Place("strong", 10, 100.0, 1.0), Place("weak", 10, 75.0, 1.0)]
    placement = greedy(works, places)
    # large to strong (100 -> 70), middle to weak (75 -> 55), small to strong (70 -> 60)
    assert placement.assignment == {"large": "strong", "middle": "weak", "small": "strong"}
    assert placement.energy_left == {"strong": 60.0, "weak": 55.0}


def test_a_place_without_the_memory_is_passed_over_however_much_energy_it_has() -> None:
    places = [Place("charged", 4, 1000.0, 1.0), Place("roomy", 5, 100.0, 1.0)]
    assert greedy([Work("submodel-0", 1, 5)], places).assignment == {"submodel-0": "roomy"}


def test_too_little_memory_is_one_sentence_with_the_figures_and_a_way_out() -> None:
    works = [Work("submodel-0", 10, 2 * MEGABYTE), Work("submodel-1", 20, 9_500_000)]
    places = [Place("pi", 4 * MEGABYTE, 100.0, 1.0), Place("phone", 8 * MEGABYTE, 100.0, 1.0)]
    with pytest.raises(PlanError) as raised:
        greedy(works, places)
    assert raised.value.code == "plan.memory"
    for part in ("submodel-1", "9.5 MB", "phone", "8.0 MB", "fewer heads", "more devices", "--memory-mb"):
        assert part in raised.value.message


def test_memory_already_given_away_is_not_offered_again() -> None:
    works = [Work("submodel-0", 20, 6), Work("submodel-1", 10, 6)]
    with pytest.raises(PlanError, match="submodel-1 needs"):
        greedy(works, [Place("only", 11, 100.0, 1.0)])


def test_too_little_energy_is_named_as_such() -> None:
    with pytest.raises(PlanError) as raised:
        greedy([Work("submodel-0", 10, 1)], [Place("pi", 5, 9.0, 1.0), Place("full", 0, 99.0, 1.0)])
    assert raised.value.code == "plan.energy"
    for part in ("submodel-0", "10 J", "pi", "9 J"):
        assert part in raised.value.message


def test_no_device_at_all() -> None:
    with pytest.raises(PlanError, match="device run") as raised:
        greedy([Work("submodel-0", 1, 1)], [])
    assert raised.value.code == "plan.no_devices"


def test_nothing_to_place_is_no_error() -> None:
    assert greedy([], []) == Placement(assignment={}, energy_left={})


@pytest.mark.parametrize(
    ("works", "places", "name"),
    [
        ([Work("twin", 1, 1), Work("twin", 2, 1)], [Place("pi", 9, 9.0, 1.0)], "twin"),
        ([Work("submodel-0", 1, 1)], [Place("pi", 9, 9.0, 1.0), Place("pi", 8, 9.0, 1.0)], "pi"),
    ],
)
def test_a_name_twice_is_refused(works: list[Work], places: list[Place], name: str) -> None:
    with pytest.raises(PlanError, match=name) as raised:
        greedy(works, places)
    assert raised.value.code == "plan.duplicate"


@pytest.mark.parametrize("numbers", [(-1, 1.0, 1.0), (1, -1.0, 1.0), (1, math.nan, 1.0), (1, 1.0, math.inf)])
def test_figures_that_cannot_be_are_refused(numbers: tuple[int, float, float]) -> None:
    with pytest.raises(PlanError, match="pi"):
        Place("pi", *numbers)
    with pytest.raises(PlanError, match="submodel-0"):
        Work("submodel-0", -1, 1)
