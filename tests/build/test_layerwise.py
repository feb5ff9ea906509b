"""Widths of each layer: the budget is kept, what is worth least goes first, a whole block can go."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edvit_tf.build.importance import Importance
from edvit_tf.build.latency import Milliseconds, fit, measured_sizes, worst_error
from edvit_tf.build.layerwise import Bytes, check_budget, choose_within, smallest, total
from edvit_tf.build.plan import plan_export
from edvit_tf.build.settings import ExportSettings
from edvit_tf.build.surgery import cut, keep_all
from edvit_tf.build.widths import uniform
from edvit_tf.errors import PlanError, UsageError
from edvit_tf.vit.checkpoint import Checkpoint, fresh_weights
from edvit_tf.vit.config import PRESETS, BlockConfig, ImageSize, ViTConfig
from edvit_tf.vit.model import from_checkpoint

SMALL = ViTConfig(
    ImageSize(8, 8, 1), 4, 32, 8, (BlockConfig(4, 64), BlockConfig(3, 48), BlockConfig(2, 40)), 6
)


def random_importance(config: ViTConfig, seed: int) -> Importance:
    generator = np.random.default_rng(seed)
    return Importance(
        generator.exponential(5, config.width),
        tuple(generator.exponential(3, block.heads) for block in config.blocks),
        tuple(generator.exponential(1, block.mlp_units) for block in config.blocks),
    )


@given(
    width=st.integers(1, 40),
    blocks=st.lists(st.builds(BlockConfig, st.integers(1, 5), st.integers(1, 70)), min_size=1, max_size=4),
    classes=st.integers(1, 12),
)
def test_bytes_are_those_of_the_parameters(width: int, blocks: list[BlockConfig], classes: int) -> None:
    config = replace(SMALL, width=width, blocks=tuple(blocks), classes=classes)
    assert total(Bytes(), config) == config.f32_bytes


@given(seed=st.integers(0, 1000), share=st.floats(0.08, 1.0))
@settings(max_examples=30)
def test_the_budget_is_kept_and_widths_are_multiples_of_eight(seed: int, share: float) -> None:
    budget = share * SMALL.f32_bytes
    kept = choose_within(random_importance(SMALL, seed), SMALL, Bytes(), budget)
    config, _ = cut(SMALL, fresh_weights(SMALL, seed=1), kept)
    assert config.f32_bytes <= budget
    assert config.width % 8 == 0
    assert all(block.mlp_units % 8 == 0 and block.heads >= 1 for block in config.blocks)


def test_nothing_goes_while_all_fits() -> None:
    kept, everything = choose_within(random_importance(SMALL, 1), SMALL, Bytes(), 1e9), keep_all(SMALL)
    assert kept.residual.tolist() == everything.residual.tolist()
    assert [units.tolist() for units in kept.mlp] == [units.tolist() for units in everything.mlp]


def test_what_is_worth_nothing_goes_first_and_a_worthless_block_goes_whole() -> None:
    importance = random_importance(SMALL, 2)
    weights = fresh_weights(SMALL, seed=1)
    for layer in ("projection", "mlp_down"):  # block 1 adds nothing to the stream
        weights[f"block_1_{layer}/kernel"] *= 0
    worthless = replace(
        importance,
        heads=(importance.heads[0], np.zeros(3), importance.heads[2]),
        mlp=(importance.mlp[0], np.zeros(48), importance.mlp[2]),
    )
    budget = SMALL.f32_bytes - Bytes().block(SMALL, SMALL.blocks[1], last=False)
    kept = choose_within(worthless, SMALL, Bytes(), budget)
    assert kept.blocks == [0, 2]
    config, smaller = cut(SMALL, weights, kept)
    assert config.blocks == (SMALL.blocks[0], SMALL.blocks[2])
    labels = tuple("abcdef")
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype(np.uint8)
    answers = [
        from_checkpoint(Checkpoint(*model, labels))(images)["logits"]
        for model in ((SMALL, weights), (config, smaller))
    ]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-5)


def test_a_budget_that_nothing_meets_names_the_smallest() -> None:
    least = total(Bytes(), smallest(SMALL))
    check_budget(SMALL, Bytes(), least)
    with pytest.raises(PlanError, match=f"the smallest that can be cut needs {least:,.6g}"):
        check_budget(SMALL, Bytes(), least - 1)
    asked = ExportSettings(
        model="fashion-vit", data="fashion_mnist", devices=10, out="x", widths="bytes", budget=500
    )
    with pytest.raises(PlanError, match="a budget of 500 bytes a sub-model"):
        plan_export(asked)
    assert plan_export(replace(asked, budget=9000)).widths.heads == 1
    with pytest.raises(UsageError, match="--budget is for widths of each layer"):
        replace(asked, widths="uniform")


def test_latency_is_linear_and_found_again_from_what_was_measured() -> None:
    vit_b = PRESETS["vit-b16"]
    true = Milliseconds(model=0.2, each_block=0.05, dense=0.02, attention=0.05)
    configs = measured_sizes(vit_b, uniform(vit_b, 2))
    times = [total(true, config) for config in configs]
    found = fit(configs, times)
    assert worst_error(found, configs, times) < 1e-6
    assert found.attention == pytest.approx(true.attention)
    # No coefficient is below 0, whatever was measured.
    noisy = fit(
        configs, [time * factor for time, factor in zip(times, (1, 2, 1, 0.4, 1, 0.3, 1, 1), strict=True)]
    )
    assert min(noisy.model, noisy.each_block, noisy.dense, noisy.attention) >= 0
