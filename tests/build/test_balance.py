"""Rare classes count as much as frequent ones, and equal classes are left as they are."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edvit_tf.build.balance import draw, without_prior
from edvit_tf.build.data import Dataset, Split
from edvit_tf.build.grouping import chooser, relabel
from edvit_tf.build.retrain import group_data
from edvit_tf.runtime.fusion import softmax


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 200), st.integers(0, 9))
def test_every_class_is_drawn_as_often(counts: list[int], total: int, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    rows = draw(np.arange(len(labels)), labels, total, np.random.default_rng(seed))
    drawn = np.bincount(labels[rows], minlength=len(counts))
    assert drawn.sum() == total
    assert drawn.max() - drawn.min() <= 1
    for label, (count, times) in enumerate(zip(counts, drawn, strict=True)):
        often = np.bincount(rows[labels[rows] == label], minlength=len(labels))[labels == label]
        assert often.max() - often.min() <= (times % count > 0)  # none twice before all were taken once


def test_equal_classes_are_taken_whole() -> None:
    labels = np.repeat(np.arange(6), 10)
    grouped = relabel(labels, (1, 4))
    plain = chooser(grouped, 2, others=1.0)(np.random.default_rng(1))
    balanced = chooser(grouped, 2, others=1.0, balanced_by=labels)(np.random.default_rng(1))
    own = np.flatnonzero(grouped < 2)
    assert sorted(plain[grouped[plain] < 2]) == sorted(balanced[grouped[balanced] < 2]) == own.tolist()
    assert len(plain) == len(balanced)
    strangers = np.bincount(labels[balanced[grouped[balanced] == 2]], minlength=6)
    assert strangers[[0, 2, 3, 5]].min() >= 2


def test_a_prior_is_taken_out_of_what_the_teacher_says() -> None:
    """Bayes: the posterior over the prior, made to sum to one again."""
    logits = np.random.default_rng(1).normal(size=(4, 2, 3)).astype(np.float32)
    counts = np.array([90, 9, 1])
    expected = softmax(logits) / counts
    found = softmax(without_prior(logits, counts))
    np.testing.assert_allclose(found, expected / expected.sum(-1, keepdims=True), rtol=1e-4)
    np.testing.assert_array_equal(without_prior(logits, np.array([7, 7, 7])), logits)


def test_a_group_sees_its_rare_class_as_often_as_its_frequent_one(dataset: Dataset) -> None:
    rare = np.flatnonzero(dataset.train.labels == 4)[4:]  # all but four
    kept = np.delete(np.arange(len(dataset.train)), rare)
    train: Split = dataset.train.take(kept)
    uneven = Dataset("uneven", dataset.classes, train, dataset.validation, "made up", mirrored=False)
    logits = np.zeros((len(train), 1, 6), np.float32)
    data = group_data(uneven, logits, (1, 4), distillation=0.5, others=1.0, balance=True, shift=2, seed=1)
    rows = data.choose(np.random.default_rng(1))
    assert np.bincount(relabel(train.labels[rows], (1, 4))).tolist() == [22, 22, 22]
    ignored = group_data(uneven, logits, (1, 4), distillation=0.5, others=1.0, balance=False, shift=2, seed=1)
    rows = ignored.choose(np.random.default_rng(1))
    assert np.bincount(relabel(train.labels[rows], (1, 4))).tolist() == [40, 4, 22]
