"""Sizes and costs against published figures and arithmetic done by hand."""

import json
from dataclasses import replace
from typing import Any

import pytest

from edvit_tf.errors import ModelError
from edvit_tf.vit.config import PRESETS, BlockConfig, ImageSize, ViTConfig, weight_shapes

MEBIBYTE = 2**20


@pytest.mark.parametrize(
    ("preset", "mebibytes", "dense_gmacs"),
    [("vit-s16", 82.66, 4.24), ("vit-b16", 327.33, 16.85), ("vit-l16", 1157.04, 59.65)],
)
def test_the_papers_models_have_the_papers_sizes(preset: str, mebibytes: float, dense_gmacs: float) -> None:
    config = PRESETS[preset]
    assert config.f32_bytes / MEBIBYTE == pytest.approx(mebibytes, abs=0.005)
    # The published figure leaves out the two products of attention and counts every token of every block.
    products = sum(2 * config.tokens**2 * block.heads * config.head_size for block in config.blocks)
    assert (config.macs_of_all_tokens - products) / 1e9 == pytest.approx(dense_gmacs, abs=0.005)


def test_vit_b_costs_17_56_gmacs_with_attention() -> None:
    assert PRESETS["vit-b16"].macs_of_all_tokens / 1e9 == pytest.approx(17.56, abs=0.005)


def test_class_token_alone_saves_the_last_blocks_other_tokens() -> None:
    config = PRESETS["vit-b16"]
    width, skipped = 768, 196
    query_and_projection = skipped * 2 * width * width
    products = skipped * 2 * 197 * width
    mlp = skipped * 2 * width * 3072
    assert config.macs_of_all_tokens - config.macs == query_and_projection + products + mlp
    assert config.macs / config.macs_of_all_tokens == pytest.approx(0.93, abs=0.01)


def test_macs_of_a_small_model_by_hand() -> None:
    config = ViTConfig(
        ImageSize(4, 4, 1), 2, width=3, head_size=5, blocks=(BlockConfig(2, 7),) * 2, classes=2
    )
    tokens, units = 5, 10
    embedding = 4 * 4 * 1 * 3
    whole = tokens * 3 * 3 * units + 2 * tokens * tokens * units + tokens * units * 3 + 2 * tokens * 3 * 7
    last = (1 + 2 * tokens) * 3 * units + 2 * tokens * units + units * 3 + 2 * 3 * 7
    assert config.macs == embedding + whole + last
    assert config.macs_of_all_tokens == embedding + 2 * whole


def test_macs_of_a_stem_by_hand() -> None:
    without = ViTConfig(ImageSize(8, 8, 3), 4, width=3, head_size=5, blocks=(BlockConfig(2, 7),), classes=2)
    config = replace(without, stem=(6, 10))
    embedding, patches = 4 * 4 * 4 * 3 * 3, 4 * 1 * 1 * 10 * 3
    convolutions = 4 * 4 * 9 * 3 * 6 + 2 * 2 * 9 * 6 * 10
    assert config.macs - without.macs == convolutions + patches - embedding
    assert (config.embedded_patch, config.embedded_channels, config.tokens) == (1, 10, 5)
    with pytest.raises(ModelError, match="4 divides"):
        replace(config, image=ImageSize(6, 6, 3), patch=2)


def test_models_from_before_there_were_stems_are_read() -> None:
    config = PRESETS["fashion-vit"]
    old = {name: value for name, value in config.to_json().items() if name != "stem"}
    assert ViTConfig.from_json(old) == config


def test_every_weight_is_listed_once_with_its_shape() -> None:
    config = ViTConfig(ImageSize(4, 6, 3), 2, width=8, head_size=4, blocks=(BlockConfig(3, 16),), classes=5)
    shapes = weight_shapes(config)
    assert len(shapes) == 4 + 16 + 4
    assert shapes["patch_embedding/kernel"] == (2, 2, 3, 8)
    assert shapes["position_embedding/positions"] == (7, 8)
    assert shapes["block_0_projection/kernel"] == (12, 8)
    assert shapes["head/kernel"] == (8, 5)


@pytest.mark.parametrize("preset", PRESETS)
def test_json_round_trip(preset: str) -> None:
    config = replace(PRESETS[preset], blocks=(BlockConfig(1, 8), *PRESETS[preset].blocks))
    assert ViTConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    "change",
    [
        {"patch": 5},
        {"patch": 0},
        {"width": "96"},
        {"width": True},
        {"blocks": []},
        {"blocks": 4},
        {"blocks": [{"heads": 0, "mlp_units": 8}]},
        {"blocks": [{"heads": 2}]},
        {"image": {"height": 28, "width": 28}},
        {"mean": [1.0, 2.0]},
        {"mean": [float("nan")]},
        {"deviation": [0.0]},
        {"surprise": 1},
    ],
)
def test_a_broken_configuration_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        ViTConfig.from_json(PRESETS["fashion-vit"].to_json() | change)


@pytest.mark.parametrize("value", [None, [], {}, "vit"])
def test_something_else_is_no_configuration(value: object) -> None:
    with pytest.raises(ModelError, match="must hold exactly"):
        ViTConfig.from_json(value)
