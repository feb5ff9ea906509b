"""Groups are a balanced partition that the seed decides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edvit_tf.build.split import random_balanced
from edvit_tf.errors import UsageError


@given(st.integers(1, 40), st.data())
def test_every_class_is_in_one_group_and_sizes_differ_by_at_most_one(
    classes: int, data: st.DataObject
) -> None:
    groups = data.draw(st.integers(1, classes))
    split = random_balanced(classes, groups, seed=data.draw(st.integers(0, 5)))
    sizes = [len(group) for group in split]
    assert sorted(index for group in split for index in group) == list(range(classes))
    assert len(split) == groups
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)
    assert all(list(group) == sorted(group) for group in split)


def test_the_seed_decides() -> None:
    assert random_balanced(10, 3, seed=1) == random_balanced(10, 3, seed=1)
    assert len({random_balanced(10, 3, seed=seed) for seed in range(5)}) == 5


@pytest.mark.parametrize(("classes", "groups"), [(3, 4), (3, 0), (3, -1)])
def test_more_groups_than_classes_are_refused(classes: int, groups: int) -> None:
    with pytest.raises(UsageError, match="ask for 1 to 3"):
        random_balanced(classes, groups, seed=0)
