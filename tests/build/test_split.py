"""Groups hold every class once; each way to make them does what it is named after."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edvit_tf.build.split import Groups, by_count, by_hand, by_likeness, likeness, random_balanced
from edvit_tf.errors import UsageError

LABELS = ("cat", "dog", "ship", "truck")


def symmetric(classes: int, seed: int) -> NDArray[np.float64]:
    matrix = np.random.default_rng(seed).random((classes, classes))
    matrix = matrix + matrix.T
    np.fill_diagonal(matrix, 0)
    return matrix


def inside(split: Groups, alike: NDArray[np.float64]) -> float:
    return sum(float(alike[a, b]) for group in split for a, b in itertools.combinations(group, 2))


def assert_partition(split: Groups, classes: int) -> None:
    assert sorted(index for group in split for index in group) == list(range(classes))
    assert all(group and list(group) == sorted(group) for group in split)


@given(classes=st.integers(1, 12), data=st.data())
def test_every_class_is_in_one_group(classes: int, data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, classes))
    seed = data.draw(st.integers(0, 5))
    alike = symmetric(classes, seed)
    balanced = [
        random_balanced(classes, groups, seed=seed),
        by_likeness(alike, groups, together=True, seed=seed),
        by_likeness(alike, groups, together=False, seed=seed),
    ]
    for split in balanced:
        sizes = [len(group) for group in split]
        assert len(split) == groups
        assert_partition(split, classes)
        assert max(sizes) - min(sizes) <= 1
        assert sizes == sorted(sizes, reverse=True)


def test_the_seed_decides() -> None:
    assert random_balanced(10, 3, seed=1) == random_balanced(10, 3, seed=1)
    assert len({random_balanced(10, 3, seed=seed) for seed in range(5)}) == 5


@pytest.mark.parametrize(("classes", "groups"), [(3, 4), (3, 0), (3, -1)])
def test_more_groups_than_classes_are_refused(classes: int, groups: int) -> None:
    with pytest.raises(UsageError, match="ask for 1 to 3"):
        random_balanced(classes, groups, seed=0)
    with pytest.raises(UsageError, match="ask for 1 to 3"):
        by_likeness(symmetric(classes, 0), groups, together=True, seed=0)
    with pytest.raises(UsageError, match="ask for 1 to 3"):
        by_count([1] * classes, groups)


def test_likeness_is_what_the_teacher_confuses() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.4, 0.6, 0.0], [0.0, 0.0, 1.0], [0.9, 0.0, 0.1]], np.float32)
    alike = likeness(probabilities, np.array([0, 1, 2, 0]))
    expected = [[0, (0.1 + 0.4) / 2, 0.05], [(0.1 + 0.4) / 2, 0, 0], [0.05, 0, 0]]
    np.testing.assert_allclose(alike, expected, atol=1e-7)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_exchanges_find_the_best_of_all_splits(together: bool, seed: int) -> None:
    alike = symmetric(6, seed)
    found = inside(by_likeness(alike, 3, together=together, seed=seed), alike)
    every = [inside((order[:2], order[2:4], order[4:]), alike) for order in itertools.permutations(range(6))]
    assert found == pytest.approx(max(every) if together else min(every))


def test_classes_that_are_alike_share_a_group_or_none_does() -> None:
    alike = np.zeros((6, 6))
    for a, b in ((0, 5), (1, 4), (2, 3)):
        alike[a, b] = alike[b, a] = 1.0
    assert by_likeness(alike, 3, together=True, seed=0) == ((0, 5), (1, 4), (2, 3))
    assert inside(by_likeness(alike, 3, together=False, seed=0), alike) == 0


@given(counts=st.lists(st.integers(0, 5000), min_size=1, max_size=12), data=st.data())
def test_groups_by_count_are_about_as_full(counts: list[int], data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, len(counts)))
    split = by_count(counts, groups)
    assert_partition(split, len(counts))
    pictures = [sum(counts[index] for index in group) for group in split]
    assert pictures == sorted(pictures, reverse=True)
    # Taking the last class out of the fullest group leaves no more than the emptiest has (Graham, 1969).
    assert len(split[0]) == 1 or pictures[0] - min(counts[i] for i in split[0]) <= pictures[-1]


@pytest.mark.parametrize("text", ["cat,dog;ship,truck", " 1, cat ;3,ship", "dog,cat; ship , truck"])
def test_a_user_names_the_groups(text: str) -> None:
    assert by_hand(text, LABELS) == ((0, 1), (2, 3))


def test_a_label_that_is_a_number_is_a_label() -> None:
    assert by_hand("1; 0", ("1", "0")) == ((0,), (1,))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("cat,dog;ship", "'truck' is named nowhere"),
        ("cat,dog;ship,truck,cat", "'cat' is named 2 times"),
        ("cat,cow;ship", "cow"),
        ("cat;;dog", "''"),
    ],
)
def test_groups_that_do_not_hold_every_class_once_are_refused(text: str, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        by_hand(text, LABELS)
