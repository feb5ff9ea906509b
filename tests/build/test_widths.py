"""The paper's size table comes out, and the units with the highest scores stay."""

from dataclasses import replace

import numpy as np
import pytest

from edvit_tf.build.importance import Importance
from edvit_tf.build.settings import read_widths
from edvit_tf.build.widths import (
    DEFAULT_SHARE,
    Widths,
    check_within,
    choose,
    largest_within,
    most_logits,
    narrowed,
    uniform,
)
from edvit_tf.errors import ModelError, PlanError, UsageError
from edvit_tf.vit.config import PRESETS, BlockConfig

MEBIBYTE = 2**20
# PAPER: the largest k of which N fit into the budget, and the size of one.
TABLE = {
    "vit-s16": (50, {1: (4, 37.11), 2: (3, 21.08), 3: (2, 9.55), 5: (2, 9.55), 10: (1, 2.53)}),
    "vit-b16": (180, {1: (8, 146.22), 2: (6, 82.66), 3: (5, 57.63), 5: (3, 21.08), 10: (2, 9.55)}),
    "vit-l16": (600, {1: (11, 547.97), 2: (8, 290.51), 3: (6, 163.88), 5: (5, 114.07), 10: (3, 41.44)}),
}


@pytest.mark.parametrize(
    ("preset", "budget", "submodels", "heads", "mebibytes"),
    [(name, budget, n, *row) for name, (budget, rows) in TABLE.items() for n, row in rows.items()],
)
def test_the_papers_table(preset: str, budget: int, submodels: int, heads: int, mebibytes: float) -> None:
    config = PRESETS[preset]
    widths = largest_within(config, submodels, budget * MEBIBYTE)
    assert widths == Widths(len(config.blocks), heads, 64 * heads, 256 * heads)
    submodel = config.with_classes(most_logits(config.classes, submodels))
    assert round(narrowed(submodel, widths).f32_bytes / MEBIBYTE, 2) == mebibytes


def test_the_papers_cost_ratio() -> None:
    config = PRESETS["vit-b16"]
    submodel = narrowed(config, uniform(config, 2))
    assert submodel.macs_of_all_tokens / 1e9 == pytest.approx(0.603, abs=0.0005)
    assert config.macs_of_all_tokens / submodel.macs_of_all_tokens == pytest.approx(29.1, abs=0.05)


def test_keeping_all_heads_keeps_the_model() -> None:
    for config in PRESETS.values():
        assert narrowed(config, uniform(config, config.blocks[0].heads)) == config


def test_widths_as_text_are_read_again() -> None:
    for widths in (Widths(2, 1, 24, 56), Widths(12, 3, 192, 768, (16, 24))):
        assert read_widths(str(widths)) == widths
    assert read_widths("uniform") is None


@pytest.mark.parametrize("text", ["2x2x24", "2x2x24x", "2x0x24x56", "2x2x24x-8", "2X2X24X56", "unifrom", ""])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="or blocks, heads, channels and MLP units such as 2x2x24x56"):
        read_widths(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("5x1x8x8", "keep 5 blocks, and the model has 4"),
        ("4x9x8x8", "keep 9 heads, and the model has 8"),
        ("4x8x104x8", "keep 104 channels, and the model has 100"),
        ("4x8x12x8", "keep 12 channels: .* a multiple of 8"),
        ("4x8x8x8x16", "for 1 convolutions of a stem, and the model has 0"),
    ],
)
def test_widths_that_a_model_cannot_be_cut_to_are_refused(text: str, said: str) -> None:
    config = replace(PRESETS["fashion-vit"], width=100, blocks=(BlockConfig(8, 300),) * 4)
    widths = read_widths(text)
    assert widths is not None
    with pytest.raises(PlanError, match=said):
        check_within(config, widths)


def test_all_that_a_model_has_can_be_kept() -> None:
    for config in (replace(PRESETS["fashion-vit"], width=100), *PRESETS.values()):
        block = config.blocks[0]
        check_within(
            config, Widths(len(config.blocks), block.heads, config.width, block.mlp_units, config.stem)
        )


def test_widths_are_multiples_of_eight() -> None:
    config = replace(PRESETS["fashion-vit"], width=100, blocks=(BlockConfig(7, 300),) * 2)
    for heads in range(1, 7):
        widths = uniform(config, heads)
        assert widths.heads == heads
        assert widths.width % 8 == widths.mlp_units % 8 == 0
        assert abs(widths.width - 100 * heads / 7) <= 4
        assert abs(widths.mlp_units - 300 * heads / 7) <= 4
    assert uniform(config, 7) == Widths(2, 7, 100, 300)  # never more than there is


def test_the_default_budget_is_a_share_of_the_teacher() -> None:
    config = PRESETS["fashion-vit"]
    for submodels in (1, 3, 10):
        widths = largest_within(config, submodels)
        wider = uniform(config, widths.heads + 1)
        submodel = config.with_classes(most_logits(config.classes, submodels))
        budget = DEFAULT_SHARE * config.f32_bytes
        assert submodels * narrowed(submodel, widths).f32_bytes <= budget
        assert submodels * narrowed(submodel, wider).f32_bytes > budget


def test_a_budget_for_nothing_is_refused() -> None:
    with pytest.raises(PlanError, match="2 sub-models need at least"):
        largest_within(PRESETS["fashion-vit"], 2, 1000)


def test_impossible_widths_are_refused() -> None:
    config = PRESETS["fashion-vit"]
    for heads in (0, 7):
        with pytest.raises(PlanError, match="has 6"):
            uniform(config, heads)
    with pytest.raises(ModelError, match="all the same size"):
        uniform(replace(config, blocks=(BlockConfig(6, 384), BlockConfig(5, 384))), 2)


def test_the_highest_scores_stay() -> None:
    importance = Importance(
        np.asarray([0.0, 5.0, 1.0, 5.0]),
        (np.asarray([1.0, 2.0]), np.asarray([2.0, 1.0])),
        (np.asarray([3.0, 1.0, 2.0]), np.asarray([1.0, 1.0, 1.0])),
    )
    kept = choose(importance, Widths(blocks=2, heads=1, width=3, mlp_units=2))
    assert kept.residual.tolist() == [1, 2, 3]
    assert [block.tolist() for block in kept.heads] == [[1], [0]]
    assert [block.tolist() for block in kept.mlp] == [[0, 2], [0, 1]]
    with pytest.raises(PlanError, match="5 units cannot be kept of 4"):
        choose(importance, Widths(blocks=2, heads=1, width=5, mlp_units=2))
