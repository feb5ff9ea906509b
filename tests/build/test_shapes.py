"""Shapes of a sub-model: none takes more bytes than the uniform one, and each can be cut from the teacher."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edvit_tf.build.importance import Importance
from edvit_tf.build.plan import plan_export
from edvit_tf.build.settings import ExportSettings
from edvit_tf.build.shapes import shapes
from edvit_tf.build.surgery import cut
from edvit_tf.build.widths import Widths, choose, narrowed, uniform
from edvit_tf.errors import UsageError
from edvit_tf.vit.checkpoint import fresh_weights
from edvit_tf.vit.config import PRESETS, ViTConfig


def importance_of(config: ViTConfig, *, best_blocks: tuple[int, ...]) -> Importance:
    generator = np.random.default_rng(1)
    worth = [10.0 if index in best_blocks else 1.0 for index in range(len(config.blocks))]
    return Importance(
        generator.exponential(1, config.width),
        tuple(w * np.ones(block.heads) for w, block in zip(worth, config.blocks, strict=True)),
        tuple(w * np.ones(block.mlp_units) for w, block in zip(worth, config.blocks, strict=True)),
        tuple(generator.exponential(1, channels) for channels in config.stem),
    )


@given(preset=st.sampled_from(sorted(PRESETS)), share=st.floats(0.05, 1))
@settings(max_examples=40, deadline=None)
def test_no_shape_takes_more_bytes(preset: str, share: float) -> None:
    config = PRESETS[preset]
    base = uniform(config, max(1, round(share * config.blocks[0].heads)))
    found = shapes(config, base)
    assert found[0] == base
    assert len(set(found)) == len(found)
    for widths in found[1:]:
        assert narrowed(config, widths).f32_bytes <= narrowed(config, base).f32_bytes
        assert widths.width % 8 == widths.mlp_units % 8 == 0
        assert base.width <= widths.width <= config.width
        assert 1 <= widths.blocks <= base.blocks
        assert base.heads <= widths.heads <= config.blocks[0].heads
        assert widths.width / 2 <= widths.mlp_units <= config.blocks[0].mlp_units


def test_a_small_sub_model_may_be_wider_and_less_deep() -> None:
    config = PRESETS["fashion-vit"]
    found = shapes(config, uniform(config, 1))
    assert Widths(blocks=3, heads=1, width=32, mlp_units=24) in found
    assert {widths.blocks for widths in found} == {2, 3, 4}


def test_a_stem_may_have_more_channels_for_fewer_units() -> None:
    config = PRESETS["cifar-vit"]
    assert {(8, 16), (16, 24), (16, 32)} == {w.stem for w in shapes(config, uniform(config, 1))}


def test_the_blocks_that_are_worth_most_stay() -> None:
    config = PRESETS["fashion-vit"]
    kept = choose(importance_of(config, best_blocks=(0, 3)), Widths(2, 1, 32, 48))
    assert kept.blocks == [0, 3]
    smaller, weights = cut(config, fresh_weights(config, seed=1), kept)
    assert smaller == narrowed(config, Widths(2, 1, 32, 48))
    assert weights["block_1_mlp_up/kernel"].shape == (32, 48)


def test_a_plan_takes_the_shape_that_was_chosen() -> None:
    asked = ExportSettings(model="fashion-vit", data="fashion_mnist", devices=10, out="x", widths="tried")
    plan = plan_export(asked)
    widths = Widths(blocks=3, heads=1, width=32, mlp_units=24)
    changed = plan.with_widths(widths)
    assert [s.group for s in changed.submodels] == [s.group for s in plan.submodels]
    assert all(len(s.config.blocks) == 3 and s.config.width == 32 for s in changed.submodels)
    largest = max(submodel.memory_bytes for submodel in changed.submodels) / 1e6
    assert changed.fits(None)
    assert changed.fits(largest)
    assert not changed.fits(largest - 0.001)
    with pytest.raises(UsageError, match="--budget is for widths of each layer"):
        replace(asked, budget=9000)


def test_random_weights_try_no_shapes() -> None:
    asked = ExportSettings(model="vit-s16", data="fashion_mnist", devices=2, out="x")
    assert asked.tries_shapes
    assert not replace(asked, random_weights=True).tries_shapes
    assert not replace(asked, widths="uniform").tries_shapes
