"""The convolutional baselines: one network, its pruning, and whole rows on tiny pictures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import method
from benchmarks.cnn import (
    CnnConfig,
    build,
    cut,
    filters_of,
    from_json,
    largest_within,
    score_filters,
    to_flatbuffer,
    to_json,
    with_fresh_head,
)
from edvit_tf.build.data import Dataset
from edvit_tf.build.settings import ExportSettings
from edvit_tf.runtime.ensemble import run_many
from edvit_tf.vit.checkpoint import Checkpoint, Weights, save
from edvit_tf.vit.config import ImageSize
from edvit_tf.vit.model import read_weights, write_weights

CONFIG = CnnConfig(ImageSize(8, 8, 1), filters_of(4), 6, (120.0,), (60.0,))


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Fresh, but for statistics of batch normalisation that change something."""
    generator = np.random.default_rng(1)
    fresh = read_weights(build(CONFIG))
    return {
        name: (weight + generator.uniform(0.1, 0.5, weight.shape)).astype(np.float32)
        if name.startswith("norm_")
        else weight
        for name, weight in fresh.items()
    }


def test_parameters_are_those_of_keras_with_the_norms_folded(weights: Weights) -> None:
    kernels = sum(w.size for name, w in weights.items() if name.startswith(("conv_", "head/")))
    assert CONFIG.parameters == kernels + sum(CONFIG.filters)
    assert from_json(to_json(CONFIG)) == CONFIG
    # 8 x 8, then 4 x 4 twice, then 2 x 2 twice, nine numbers a kernel.
    assert CONFIG.macs == 9 * (64 * 4 + 16 * (4 * 8 + 8 * 8) + 4 * (8 * 16 + 16 * 16)) + 16 * 6


@pytest.mark.parametrize(("format_name", "tolerance"), [("f32", 1e-4), ("int8-dynamic", 0.1)])
def test_the_flatbuffer_answers_as_keras_does(
    weights: Weights, dataset: Dataset, format_name: str, tolerance: float
) -> None:
    model = build(CONFIG)
    write_weights(model, weights)
    images = dataset.validation.images[:8]
    expected = model(images, training=False)
    found = run_many(to_flatbuffer(CONFIG, weights, format_name), images)
    for answer, truth in ((found.features, expected["feature"]), (found.logits, expected["logits"])):
        assert np.abs(answer - truth).max() < tolerance * np.abs(truth).max()


def test_the_largest_that_fits_is_found() -> None:
    big = replace(CONFIG, filters=filters_of(16))
    limit = len(to_flatbuffer(CONFIG, read_weights(build(CONFIG)), "f32"))
    assert largest_within(big, limit).filters == CONFIG.filters
    assert sum(largest_within(big, limit - 1).filters) < sum(CONFIG.filters)
    assert largest_within(CONFIG, 10**9) == CONFIG
    with pytest.raises(ValueError, match="as small as 100 bytes"):
        largest_within(big, 100)


def test_filters_that_are_worth_nothing_go_and_nothing_changes(weights: Weights, dataset: Dataset) -> None:
    dead = {index: [1, filters // 2] for index, filters in enumerate(CONFIG.filters)}
    silent = {name: weight.copy() for name, weight in weights.items()}
    for index, filters in dead.items():
        for part in ("gamma", "beta"):
            silent[f"norm_{index}/{part}"][filters] = 0
    images = dataset.validation.images
    scores = score_filters(CONFIG, silent, images, seed=1)
    for index, score in enumerate(scores):
        assert (score[dead[index]] == 0).all()
    smaller, kept = cut(CONFIG, silent, scores, [filters - 2 for filters in CONFIG.filters])
    whole, pruned = build(CONFIG), build(smaller)
    write_weights(whole, silent)
    write_weights(pruned, kept)
    expected = whole(images, training=False)["logits"]
    np.testing.assert_allclose(pruned(images, training=False)["logits"], expected, atol=1e-5)
    config, other = with_fresh_head(smaller, kept, 3)
    write_weights(build(config), other)
    assert config.classes == 3


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_new_row_is_made_and_measured(
    teacher: Checkpoint, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "toy-vit.safetensors"
    save(model, teacher)
    data, settings_of = str(data_folder), method.settings_of

    def quick(asked: method.Asked, *, folder: Path, workers: int) -> ExportSettings:
        made = settings_of(asked, folder=folder, workers=workers)
        return replace(made, batch=32, rate=5e-3, fusion_epochs=10)

    monkeypatch.setattr(method, "settings_of", quick)
    monkeypatch.setitem(method.TEACHERS, data, str(model))
    monkeypatch.setitem(method.HEADS, 2, 1)
    rows = {}
    for name in ("teacher", "teacher_int8", "random_init", "single_total", "single_cnn", "cnn_split"):
        asked = method.Asked(data, name, 2, 1)
        for row in method.rows_of(asked, folder=tmp_path / "rows", workers=1):
            rows[row.method, row.format] = row
    assert rows["teacher_int8", "int8-dynamic"].bytes_per_device < rows["teacher", "f32"].bytes_per_device
    part = rows["random_init", "f32"]
    assert part.accuracy > 0.5
    assert rows["single_total", "f32"].parameters_per_device >= 1.9 * part.parameters_per_device
    for name in ("single_cnn", "cnn_split"):
        assert 0.7 * part.bytes_per_device < rows[name, "f32"].bytes_per_device <= part.bytes_per_device
        assert rows[name, "f32"].accuracy > 0.5
    assert rows["single_cnn", "f32"].worst_missing_accuracy is None
    assert rows["cnn_split", "f32"].worst_missing_accuracy is not None
