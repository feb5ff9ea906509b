"""Scores from one backward pass against the divergence they stand for, measured by removing units."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edvit_tf.build.importance import (
    Importance,
    divergence,
    fisher,
    mean_importance,
    proxy_images,
    reference_passes,
)
from edvit_tf.errors import DataError
from edvit_tf.vit.checkpoint import Weights
from edvit_tf.vit.config import PRESETS, BlockConfig, ImageSize, ViTConfig
from edvit_tf.vit.keras import keras
from edvit_tf.vit.model import build, read_weights
from tests.vit.reference import forward, random_images, random_weights

CONFIG = ViTConfig(
    ImageSize(8, 8, 1), 4, width=16, head_size=4, blocks=(BlockConfig(4, 24), BlockConfig(4, 24)), classes=4
)
STEM = replace(CONFIG, stem=(6, 5))
Array = NDArray[np.float64]


def quadrants(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noise with one brighter quadrant; which one is the class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, count)
    images = random.integers(0, 200, (count, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[row : row + 4, column : column + 4] += 40
    return images.astype(np.uint8), labels


@pytest.fixture(scope="module")
def trained() -> Weights:
    images, labels = quadrants(1024, 0)
    keras.utils.set_random_seed(0)
    model = build(CONFIG)
    loss = {"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    model.compile(keras.optimizers.Adam(3e-3), loss=loss, jit_compile=True)
    model.fit(images, {"logits": labels}, batch_size=64, epochs=6, verbose=0)
    return read_weights(model)


def softmax(logits: Array) -> Array:
    exponentials: Array = np.exp(logits - logits.max(-1, keepdims=True))
    total: Array = exponentials.sum(-1, keepdims=True)
    return exponentials / total


def measured(config: ViTConfig, weights: Weights, images: NDArray[np.uint8], change: float) -> Importance:
    """KL(whole ‖ changed), mean over images, each unit's gate lowered by `change` in turn: brute force."""
    _, whole = forward(config, weights, images)
    probabilities = softmax(whole)

    def divergence(**gates: Any) -> float:
        _, logits = forward(config, weights, images, **gates)
        return float((probabilities * np.log(probabilities / softmax(logits))).sum(-1).mean())

    def lowered(count: int, unit: int) -> Array:
        gate = np.ones(count)
        gate[unit] -= change
        return gate

    def by_layer(kind: str, sizes: list[int]) -> tuple[Array, ...]:
        scores = []
        for block, size in enumerate(sizes):
            gates = [[np.ones(n) for n in sizes] for _ in range(size)]
            for unit in range(size):
                gates[unit][block] = lowered(size, unit)
            scores.append(np.asarray([divergence(**{kind: gate}) for gate in gates]))
        return tuple(scores)

    return Importance(
        np.asarray([divergence(residual=lowered(CONFIG.width, unit)) for unit in range(config.width)]),
        by_layer("heads", [block.heads for block in config.blocks]),
        by_layer("mlp", [block.mlp_units for block in config.blocks]),
        by_layer("stem", list(config.stem)),
    )


def every_kind(importance: Importance) -> dict[str, Array]:
    return {
        "residual": importance.residual,
        "heads": np.concatenate(importance.heads),
        "mlp": np.concatenate(importance.mlp),
        **({"stem": np.concatenate(importance.stem)} if importance.stem else {}),
    }


def rank_correlation(a: Array, b: Array) -> float:
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


def test_scores_are_the_second_order_of_the_divergence() -> None:
    """With the gates lowered a little, and many signs for each image, score x change² is the divergence."""
    weights = random_weights(STEM, 3)
    images = random_images(STEM, 6, 0)
    change = 1e-3
    expected = every_kind(measured(STEM, weights, images, change))
    found = every_kind(fisher(STEM, weights, batch_size=600)(np.tile(images, (400, 1, 1, 1)), 0))
    for kind, scores in found.items():
        np.testing.assert_allclose(scores * change**2, expected[kind], rtol=0.35, err_msg=kind)
        assert np.median(scores * change**2 / expected[kind]) == pytest.approx(1, abs=0.05)


def test_the_reference_removes_each_unit_in_turn() -> None:
    weights = random_weights(STEM, 3)
    images = random_images(STEM, 6, 0)
    expected = every_kind(measured(STEM, weights, images, 1.0))
    for kind, scores in every_kind(divergence(STEM, weights, images)).items():
        np.testing.assert_allclose(scores, expected[kind], rtol=1e-3, atol=1e-7, err_msg=kind)
    with pytest.raises(DataError, match="no images"):
        divergence(STEM, weights, images[:0])


def test_one_backward_pass_stands_for_thousands_of_forward_passes() -> None:
    assert reference_passes(STEM) == 1 + 16 + 2 * (4 + 24) + 6 + 5
    assert reference_passes(PRESETS["vit-b16"]) == 1 + 768 + 12 * (12 + 3072)


def test_scores_rank_units_as_removing_them_does(trained: Weights) -> None:
    images, labels = quadrants(512, 1)
    proxy = proxy_images(images, labels, (0, 2), per_class=64, seed=0)
    expected = every_kind(measured(CONFIG, trained, proxy, 1.0))
    found = every_kind(fisher(CONFIG, trained)(proxy, 0))
    correlation = {kind: rank_correlation(scores, expected[kind]) for kind, scores in found.items()}
    assert correlation["heads"] > 0.7, correlation
    assert correlation["mlp"] > 0.7, correlation
    assert correlation["residual"] > 0.4, correlation


def test_scores_depend_on_the_group(trained: Weights) -> None:
    images, labels = quadrants(512, 1)
    groups = [proxy_images(images, labels, group, per_class=64, seed=0) for group in ((0, 1), (2, 3))]
    first, second = (fisher(CONFIG, trained)(group, 0) for group in groups)
    assert rank_correlation(np.concatenate(first.mlp), np.concatenate(second.mlp)) < 0.95


def test_a_group_has_the_means_of_its_classes(trained: Weights) -> None:
    images, labels = quadrants(512, 1)
    of_classes = [proxy_images(images, labels, (label,), per_class=16, seed=0) for label in (0, 2)]
    expected = every_kind(divergence(CONFIG, trained, np.concatenate(of_classes)))
    found = mean_importance([divergence(CONFIG, trained, proxies) for proxies in of_classes])
    for kind, scores in every_kind(found).items():
        np.testing.assert_allclose(scores, expected[kind], rtol=1e-4, atol=1e-9, err_msg=kind)


def test_a_unit_that_writes_nothing_is_worth_nothing() -> None:
    weights = random_weights(CONFIG, 3)
    weights["block_0_projection/kernel"][4:8] = 0
    weights["block_1_mlp_down/kernel"][5] = 0
    scores = fisher(CONFIG, weights)(random_images(CONFIG, 4, 0), 0)
    assert scores.heads[0][1] == scores.mlp[1][5] == 0
    assert (np.delete(scores.heads[0], 1) > 0).all()
    assert (np.delete(scores.mlp[1], 5) > 0).all()
    assert (scores.residual > 0).all()


def test_batches_change_nothing() -> None:
    weights, images = random_weights(CONFIG, 3), random_images(CONFIG, 5, 0)
    once, in_parts = (every_kind(fisher(CONFIG, weights, batch_size=size)(images, 0)) for size in (5, 2))
    for kind, scores in once.items():
        np.testing.assert_allclose(in_parts[kind], scores, rtol=1e-3, err_msg=kind)


def test_the_seed_decides() -> None:
    weights, images = random_weights(CONFIG, 3), random_images(CONFIG, 5, 0)
    score = fisher(CONFIG, weights)
    first, again, other = (score(images, seed).residual for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_proxy_set_is_balanced_and_the_groups_own() -> None:
    labels = np.asarray([0] * 20 + [1] * 5 + [2] * 20)
    images = np.arange(45, dtype=np.uint8).reshape(45, 1, 1, 1)
    proxy = proxy_images(images, labels, (1, 2), per_class=3, seed=0).ravel()
    assert len(set(proxy)) == 6
    assert np.bincount(labels[proxy], minlength=3).tolist() == [0, 3, 3]
    smallest_decides = proxy_images(images, labels, (1, 2), per_class=9, seed=0).ravel()
    assert np.bincount(labels[smallest_decides], minlength=3).tolist() == [0, 5, 5]


def test_no_images_are_refused() -> None:
    images, labels = quadrants(8, 0)
    with pytest.raises(DataError, match="no image of class 7"):
        proxy_images(images, labels, (0, 7), per_class=2, seed=0)
    with pytest.raises(DataError, match="no images"):
        fisher(CONFIG, random_weights(CONFIG, 0))(images[:0], 0)
