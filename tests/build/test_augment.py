"""Augmentation follows its generator and nothing else, and leaves pictures and targets what they are."""

import numpy as np
import pytest

from edvit_tf.build.augment import augmentation
from edvit_tf.build.data import Dataset
from edvit_tf.build.training import Examples, one_hot


@pytest.mark.parametrize("name", ["randaugment", "mixup", "cutmix"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_generator_gives_the_same_pictures(dataset: Dataset, name: str, channels: int) -> None:
    images = np.repeat(dataset.train.images[::6], channels, axis=-1)
    targets = one_hot(dataset.train.labels[::6], 6)
    augment = augmentation(name)
    assert augment is not None
    first, again, other = (augment(images, targets, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first[0].shape == images.shape
    assert first[0].dtype == np.uint8
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[0], images)
    np.testing.assert_allclose(first[1].sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(first[1], targets) == (name == "randaugment")


def test_an_operation_that_is_compiled_does_the_same(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = dataset.train.images[:64]
    targets = one_hot(dataset.train.labels[:64], 6)
    compiled = augmentation("randaugment")
    monkeypatch.setattr("edvit_tf.build.augment._compiled", lambda layer: layer)
    eager = augmentation("randaugment")
    assert compiled is not None
    assert eager is not None
    for seed in range(4):  # two operations of ten for each sixteen pictures: Equalization is among them
        ours, theirs = (
            augment(images, targets, np.random.default_rng(seed)) for augment in (compiled, eager)
        )
        np.testing.assert_array_equal(ours[0], theirs[0])


def test_batches_are_augmented_after_they_were_moved(dataset: Dataset) -> None:
    targets = one_hot(dataset.train.labels, 6)[:, np.newaxis]
    examples = Examples(dataset.train.images, targets)
    (plain, _), (mixed, shares) = (
        next(examples.batches(32, augment=augmentation(name))(np.random.default_rng(1)))
        for name in ("none", "mixup")
    )
    assert plain.shape == mixed.shape
    assert not np.array_equal(plain, mixed)
    assert ((shares > 0) & (shares < 1)).any()
