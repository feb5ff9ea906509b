"""Whole tiny exports with choices that are off by default, several in each."""

import json
from pathlib import Path

import pytest

from edvit_tf.build.export import export
from edvit_tf.build.progress import Silent
from edvit_tf.build.settings import ExportSettings, combine
from edvit_tf.build.widths import Widths, narrowed, uniform
from edvit_tf.bundle.reader import open_bundle
from edvit_tf.vit.checkpoint import Checkpoint, save
from tests.build.conftest import CONFIG

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

SAME = narrowed(CONFIG, uniform(CONFIG, 1)).with_classes(4)
"""The uniform sub-model of three classes and "other"."""


def made_with(teacher: Checkpoint, data: Path, folder: Path, **choices: object) -> ExportSettings:
    save(folder / "toy.safetensors", teacher)
    given = {
        "model": str(folder / "toy.safetensors"), "data": str(data), "out": str(folder / "bundle"),
        "devices": 2, "heads": 1, "common_epochs": 1, "epochs": 2, "fusion_epochs": 2, "batch": 32,
        "workers": 1,
    }  # fmt: skip
    return combine(None, given | choices)


def test_widths_for_bytes_with_augmentation_and_rounding(
    teacher: Checkpoint, data_folder: Path, tmp_path: Path
) -> None:
    settings = made_with(
        teacher, data_folder, tmp_path, widths="bytes", augment="cutmix", qat_epochs=1, format="int8-full,f32"
    )
    manifest = open_bundle(export(settings, Silent())).manifest
    assert manifest.config["qat_epochs"] == 1
    for submodel in manifest.submodels:
        assert [variant.format for variant in submodel.variants] == ["int8-full", "f32"]
        assert 4 * submodel.parameters <= SAME.f32_bytes


def test_widths_for_latency_with_two_of_four(teacher: Checkpoint, data_folder: Path, tmp_path: Path) -> None:
    settings = made_with(
        teacher, data_folder, tmp_path, widths="latency", sparsity="2:4", sparsity_epochs=1, format="f32"
    )
    bundle = open_bundle(export(settings, Silent()))
    assert all(submodel.parameters < CONFIG.parameters for submodel in bundle.manifest.submodels)
    (latency,) = (tmp_path / "edvit-cache").glob("latency-*")
    assert (latency / "facts.json").is_file()


def test_a_shape_is_tried(teacher: Checkpoint, data_folder: Path, tmp_path: Path) -> None:
    settings = made_with(teacher, data_folder, tmp_path, widths="tried", format="f32")
    folder = export(settings, Silent())
    tried = json.loads((folder / "report.json").read_text())["shapes"]
    assert [shape["epochs"] for shape in tried] == [8] * min(4, len(tried)) + [2] * (len(tried) - 4)
    assert tried[0]["accuracy"] == max(shape["accuracy"] for shape in tried[:4])
    config = narrowed(
        CONFIG, Widths(*(tried[0][name] for name in ("blocks", "heads", "width", "mlp_units")))
    ).with_classes(4)
    assert {made.parameters for made in open_bundle(folder).manifest.submodels} == {config.parameters}
    assert "epochs of the trial" in (folder / "report.html").read_text()
    assert tried[0]["widths"] in (folder / "report.html").read_text()
    again = made_with(
        teacher, data_folder, tmp_path, widths="tried", format="f32", out=str(tmp_path / "again")
    )
    assert (export(again, Silent()) / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()

    named = made_with(
        teacher,
        data_folder,
        tmp_path,
        widths=tried[0]["widths"],
        heads=None,
        format="f32",
        out=str(tmp_path / "named"),
    )
    before = len(list((tmp_path / "edvit-cache").iterdir()))
    for part, same in zip(
        open_bundle(export(named, Silent())).manifest.submodels,
        open_bundle(folder).manifest.submodels,
        strict=True,
    ):
        assert part == same
    assert len(list((tmp_path / "edvit-cache").iterdir())) == before, (
        "a shape that was tried is not made again"
    )
