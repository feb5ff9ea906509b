"""What must hold when a ViT is cut, whatever is cut: checked on random models and random cuts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edvit_tf.build.surgery import Indices, Kept, cut, keep_all, of_group
from edvit_tf.build.widths import narrowed, uniform
from edvit_tf.errors import ModelError
from edvit_tf.vit.checkpoint import Checkpoint, Weights
from edvit_tf.vit.config import PRESETS, BlockConfig, ImageSize, ViTConfig, weight_shapes
from edvit_tf.vit.model import build, write_weights
from tests.vit.reference import forward, random_images, random_weights

CONFIG = ViTConfig(
    ImageSize(4, 8, 1),
    4,
    width=12,
    head_size=4,
    blocks=(BlockConfig(3, 10), BlockConfig(2, 7)),
    classes=4,
    stem=(6, 5),
)
WEIGHTS = random_weights(CONFIG, 0)
MODEL = Checkpoint(CONFIG, WEIGHTS, ("ant", "bee", "cow", "dog"))
IMAGES = random_images(CONFIG, 3, 0)


@st.composite
def some_of(draw: st.DrawFn, count: int) -> Indices:
    return np.asarray(sorted(draw(st.sets(st.integers(0, count - 1), min_size=1))))


@st.composite
def cuts(draw: st.DrawFn, config: ViTConfig) -> Kept:
    return Kept(
        draw(some_of(config.width)),
        tuple(draw(some_of(block.heads)) for block in config.blocks),
        tuple(draw(some_of(block.mlp_units)) for block in config.blocks),
        tuple(draw(some_of(channels)) for channels in config.stem),
    )


def gate(kept: Indices, count: int) -> NDArray[np.float64]:
    return np.isin(np.arange(count), kept).astype(np.float64)


def test_keeping_everything_is_the_identity_through_keras() -> None:
    config, weights = cut(CONFIG, WEIGHTS, keep_all(CONFIG))
    assert config == CONFIG
    found = {}
    for name, (this_config, this_weights) in {"cut": (config, weights), "whole": (CONFIG, WEIGHTS)}.items():
        model = build(this_config)
        write_weights(model, this_weights)
        found[name] = model(IMAGES, training=False)
    for output in ("feature", "logits"):
        np.testing.assert_allclose(found["cut"][output], found["whole"][output], rtol=0, atol=1e-5)


def test_the_cut_model_runs_in_keras_as_the_gated_one() -> None:
    kept = Kept(
        np.asarray([0, 1, 4, 5, 7, 8, 11]),
        (np.asarray([1]), np.asarray([0, 1])),
        (np.asarray([0, 3, 9]), np.asarray([2, 6])),
        (np.asarray([0, 2, 5]), np.asarray([1, 2, 3])),
    )
    config, weights = cut(CONFIG, WEIGHTS, kept)
    model = build(config)
    write_weights(model, weights)
    found = model(IMAGES, training=False)
    feature, logits = gated(CONFIG, WEIGHTS, kept)
    np.testing.assert_allclose(found["feature"], feature, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-4, atol=1e-4)


def gated(config: ViTConfig, weights: Weights, kept: Kept) -> tuple[Any, Any]:
    """The whole network with every other unit gated off and norm statistics over the kept channels."""
    feature, logits = forward(
        config,
        weights,
        IMAGES,
        residual=gate(kept.residual, config.width),
        heads=[gate(h, b.heads) for h, b in zip(kept.heads, config.blocks, strict=True)],
        mlp=[gate(m, b.mlp_units) for m, b in zip(kept.mlp, config.blocks, strict=True)],
        stem=[gate(channels, count) for channels, count in zip(kept.stem, config.stem, strict=True)],
        norm_channels=kept.residual,
    )
    return feature[:, kept.residual], logits


@given(cuts(CONFIG))
@settings(max_examples=40)
def test_cutting_is_gating_with_norms_over_the_kept_channels(kept: Kept) -> None:
    for ours, gate_based in zip(
        forward(*cut(CONFIG, WEIGHTS, kept), IMAGES), gated(CONFIG, WEIGHTS, kept), strict=True
    ):
        np.testing.assert_allclose(ours, gate_based, rtol=1e-9, atol=1e-9)


@given(cuts(CONFIG))
@settings(max_examples=40)
def test_cutting_heads_and_mlp_units_whose_weights_are_zero_changes_nothing(kept: Kept) -> None:
    """A unit counts as zero when its rows of the projection, or of the MLP's second layer, are."""
    weights = {name: weight.copy() for name, weight in WEIGHTS.items()}
    for index, block in enumerate(CONFIG.blocks):
        units = np.repeat(gate(kept.heads[index], block.heads), CONFIG.head_size)
        weights[f"block_{index}_projection/kernel"] *= units[:, None].astype(np.float32)
        weights[f"block_{index}_mlp_down/kernel"] *= gate(kept.mlp[index], block.mlp_units)[:, None].astype(
            np.float32
        )
    kept = replace(kept, residual=np.arange(CONFIG.width), stem=keep_all(CONFIG).stem)
    for cut_output, output in zip(
        forward(*cut(CONFIG, weights, kept), IMAGES), forward(CONFIG, weights, IMAGES), strict=True
    ):
        np.testing.assert_allclose(cut_output, output, rtol=1e-9, atol=1e-9)


def test_cutting_a_zero_residual_channel_changes_the_norms_and_nothing_else() -> None:
    """Zero is a value like others to a norm: without it mean and variance differ; the cut is not exact."""
    weights = {name: weight.copy() for name, weight in WEIGHTS.items()}
    for name, weight in weights.items():
        if any(part in name for part in ("embedding", "class_token", "projection", "mlp_down", "_norm")):
            weight[..., 3] = 0
    kept = replace(keep_all(CONFIG), residual=np.delete(np.arange(CONFIG.width), 3))
    _, logits = forward(*cut(CONFIG, weights, kept), IMAGES)
    _, whole = forward(CONFIG, weights, IMAGES)
    _, norms_without = forward(CONFIG, weights, IMAGES, norm_channels=kept.residual)
    np.testing.assert_allclose(logits, norms_without, rtol=1e-9, atol=1e-9)
    assert np.abs(logits - whole).max() > 1e-3


@given(st.data())
@settings(max_examples=40)
def test_two_steps_or_one_agree(data: st.DataObject) -> None:
    first = data.draw(cuts(CONFIG))
    between, weights_between = cut(CONFIG, WEIGHTS, first)
    second = data.draw(cuts(between))
    both = Kept(
        first.residual[second.residual],
        tuple(a[b] for a, b in zip(first.heads, second.heads, strict=True)),
        tuple(a[b] for a, b in zip(first.mlp, second.mlp, strict=True)),
        tuple(a[b] for a, b in zip(first.stem, second.stem, strict=True)),
    )
    in_two, weights_in_two = cut(between, weights_between, second)
    in_one, weights_in_one = cut(CONFIG, WEIGHTS, both)
    assert in_two == in_one
    for name, weight in weights_in_one.items():
        np.testing.assert_array_equal(weights_in_two[name], weight)


@given(cuts(CONFIG))
@settings(max_examples=40)
def test_every_size_is_what_the_config_says(kept: Kept) -> None:
    config, weights = cut(CONFIG, WEIGHTS, kept)
    assert config.width == len(kept.residual)
    assert [block.heads for block in config.blocks] == [len(heads) for heads in kept.heads]
    assert {name: weight.shape for name, weight in weights.items()} == weight_shapes(config)
    assert sum(weight.size for weight in weights.values()) == config.parameters
    assert all(weight.base is None and weight.flags.c_contiguous for weight in weights.values())


@pytest.mark.parametrize("heads", [1, 2, 6])
@pytest.mark.parametrize("preset", ["fashion-vit", "cifar-vit"])
def test_uniform_widths_of_the_presets_come_out(preset: str, heads: int) -> None:
    config = PRESETS[preset]
    widths = uniform(config, heads)
    kept = Kept(
        np.arange(widths.width),
        (np.arange(widths.heads),) * len(config.blocks),
        (np.arange(widths.mlp_units),) * len(config.blocks),
        tuple(np.arange(channels) for channels in widths.stem),
    )
    smaller, weights = cut(config, random_weights(config, 0), kept)
    assert smaller == narrowed(config, widths)
    assert build(smaller).count_params() == smaller.parameters == sum(w.size for w in weights.values())


@pytest.mark.parametrize(
    "change",
    [
        {"residual": np.asarray([], np.intp)},
        {"residual": np.asarray([0, 12])},
        {"residual": np.asarray([-1, 2])},
        {"residual": np.asarray([2, 1])},
        {"residual": np.asarray([1, 1])},
        {"heads": (np.arange(3), np.arange(3))},
        {"mlp": (np.arange(3),)},
        {"stem": (np.arange(3),)},
        {"stem": (np.arange(3), np.asarray([5]))},
    ],
)
def test_indices_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        cut(CONFIG, WEIGHTS, replace(keep_all(CONFIG), **change))


def test_the_groups_logits_stay_and_the_rest_becomes_one() -> None:
    made = of_group(MODEL, (2, 0))
    assert made.labels == ("cow", "ant", "other")
    _, logits = forward(made.config, made.weights, IMAGES)
    _, whole = forward(CONFIG, WEIGHTS, IMAGES)
    np.testing.assert_allclose(logits[:, :2], whole[:, [2, 0]], rtol=1e-6)
    np.testing.assert_allclose(logits[:, 2], whole[:, [1, 3]].mean(axis=1) + np.log(2), rtol=1e-5)
    assert (logits[:, 2] <= np.log(np.exp(whole[:, [1, 3]]).sum(axis=1)) + 1e-6).all()


def test_a_group_of_all_classes_has_no_other() -> None:
    made = of_group(MODEL, (0, 1, 2, 3))
    assert (made.config, made.labels) == (CONFIG, MODEL.labels)
    np.testing.assert_array_equal(made.weights["head/kernel"], WEIGHTS["head/kernel"])


@pytest.mark.parametrize("group", [(), (4,), (-1, 2), (1, 1)])
def test_groups_that_are_none_are_refused(group: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="distinct classes from 0 to 3"):
        of_group(MODEL, group)
