"""Checkpoints come back as they were saved, and broken ones are refused in a sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from edvit_tf.errors import ModelError
from edvit_tf.vit.checkpoint import Checkpoint, load, save
from edvit_tf.vit.config import BlockConfig, ImageSize, ViTConfig
from tests.vit.reference import random_weights

CONFIG = ViTConfig(ImageSize(8, 8, 1), 4, width=8, head_size=4, blocks=(BlockConfig(2, 16),), classes=2)
CHECKPOINT = Checkpoint(CONFIG, random_weights(CONFIG, 0), ("shirt", "bag"), {"seed": 7, "accuracy": 0.5})


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "model.safetensors"
    save(path, CHECKPOINT)
    read = load(path)
    assert (read.config, read.labels, read.details) == (CONFIG, CHECKPOINT.labels, CHECKPOINT.details)
    assert read.weights.keys() == CHECKPOINT.weights.keys()
    for name, weight in read.weights.items():
        np.testing.assert_array_equal(weight, CHECKPOINT.weights[name])


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path: Path) -> None:
    turned = Checkpoint(
        CONFIG, dict(reversed(CHECKPOINT.weights.items())), CHECKPOINT.labels, CHECKPOINT.details
    )
    for name, checkpoint in (("a", CHECKPOINT), ("b", turned)):
        save(tmp_path / name, checkpoint)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failed_save_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save(path, CHECKPOINT)
    before = path.read_bytes()

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(ModelError, match="No space left"):
        save(path, CHECKPOINT)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no model file"):
        load(tmp_path / "none.safetensors")


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(path, CHECKPOINT)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        load(path)


def test_someone_elses_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(ModelError, match="not written by edvit-tf"):
        load(path)


@pytest.mark.parametrize(
    "header", ["{", "[]", '{"config": 1, "labels": [], "details": {}}', '{"details": {}}']
)
def test_a_broken_header_is_refused(tmp_path: Path, header: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file(CHECKPOINT.weights, path, metadata={"edvit": header})
    with pytest.raises(ModelError):
        load(path)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    weights = CHECKPOINT.weights | {"head/bias": np.asarray([np.nan, 0], np.float32)}
    save(tmp_path / "model", Checkpoint(CONFIG, weights, CHECKPOINT.labels))
    with pytest.raises(ModelError, match="head/bias"):
        load(tmp_path / "model")


def test_weights_must_be_those_of_the_config() -> None:
    fewer = {name: weight for name, weight in CHECKPOINT.weights.items() if name != "head/bias"}
    wider = CHECKPOINT.weights | {"head/bias": np.zeros(3, np.float32)}
    double = CHECKPOINT.weights | {"head/bias": np.zeros(2, np.float64)}
    cases: list[tuple[Any, str]] = [(fewer, "missing"), (wider, r"\(3,\)"), (double, "float64")]
    for weights, sentence in cases:
        with pytest.raises(ModelError, match=sentence):
            Checkpoint(CONFIG, weights, CHECKPOINT.labels)
    with pytest.raises(ModelError, match="2 logits but 1 label"):
        Checkpoint(CONFIG, CHECKPOINT.weights, ("shirt",))
