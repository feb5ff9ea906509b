"""One tiny export, whole: real processes, real training, real flatbuffers, a bundle that any reader opens."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edvit_tf.build.data import load_test
from edvit_tf.build.export import STAGES, export
from edvit_tf.build.plan import load_teacher, plan_export
from edvit_tf.build.settings import ExportSettings, combine
from edvit_tf.bundle.reader import Bundle, open_bundle
from edvit_tf.errors import DataError, EdvitError, ModelError, PlanError, TrainingError, UsageError
from edvit_tf.runtime.ensemble import evaluate
from edvit_tf.vit.checkpoint import Checkpoint, save
from tests.build.conftest import CLASSES


class Told:
    def __init__(self) -> None:
        self.stages: list[str] = []
        self.messages: list[str] = []

    def update(self, stage: str, done: float, message: str) -> None:
        assert 0 <= done <= 1
        self.stages.append(stage)
        self.messages.append(message)


@pytest.fixture(scope="module")
def settings(
    teacher: Checkpoint, data_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> ExportSettings:
    folder = tmp_path_factory.mktemp("exports")
    file = folder / "toy-vit.safetensors"
    save(file, teacher)
    return ExportSettings(
        model=str(file),
        data=str(data_folder),
        devices=2,
        out=str(folder / "bundle"),
        share=0.9,
        widths="uniform",
        sparsity=0.25,
        seed=7,
        groups="apart",
        common_epochs=16,
        epochs=8,
        sparsity_epochs=8,
        fusion_epochs=20,
        batch=32,
        rate=5e-3,
        workers=2,
        baselines=True,
    )


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def bundle(settings: ExportSettings, told: Told) -> Bundle:
    return open_bundle(export(settings, told))


def test_the_bundle_is_complete(bundle: Bundle, settings: ExportSettings, told: Told) -> None:
    manifest = bundle.manifest
    assert manifest.classes == CLASSES
    assert sorted(label for submodel in manifest.submodels for label in submodel.classes) == sorted(CLASSES)
    assert [submodel.id for submodel in manifest.submodels] == ["submodel-0", "submodel-1"]
    assert manifest.fusion.order == ("submodel-0", "submodel-1")
    assert [entry.missing for entry in manifest.fusion.calibration] == [0, 1]
    assert manifest.single is not None
    assert manifest.single.parameters == pytest.approx(manifest.submodels[0].parameters, rel=0.05)
    assert manifest.seed == 7
    assert manifest.config == settings.recorded()
    assert {"out", "workers"}.isdisjoint(manifest.config)
    assert manifest.accuracies.split == "validation"
    assert list(dict.fromkeys(told.stages)) == list(STAGES)
    names = {path.name for path in bundle.path.iterdir()}
    assert {"manifest.json", "fusion.tflite", "fusion.safetensors", "report.json", "report.html"} <= names
    assert [path.name for path in bundle.path.parent.iterdir() if path.name.startswith(".")] == []


def test_the_bundle_is_right_on_pictures_it_has_not_seen(bundle: Bundle, data_folder: Path) -> None:
    test, _ = load_test(data_folder, seed=7)
    result = evaluate(bundle, test.images, test.labels)
    assert result.teacher > 0.9
    assert result.fused > 0.8
    assert result.single is not None
    assert result.single > 0.5
    assert all(value <= result.fused + 0.1 for value in result.missing.values())


def test_the_zeros_are_still_there_in_the_report_and_the_flatbuffer(bundle: Bundle) -> None:
    report = json.loads((bundle.path / "report.json").read_text())
    assert [row["id"] for row in report["submodels"]] == ["submodel-0", "submodel-1", "single"]
    for row in report["submodels"]:
        assert 0.23 <= row["sparsity"] <= 0.3
        assert all(variant["cosine"] > 0.99 for variant in row["variants"])
    assert set(report["seconds"]) == set(STAGES)
    assert report["data"]["classes"][0] == {"label": "ant", "train": 40, "validation": 12}
    assert report["data"]["skipped"] == []
    from ai_edge_litert import schema_py_generated as schema

    content = bundle.file(bundle.manifest.submodels[0].variant().file).read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    kernels = [
        np.asarray(model.buffers[tensor.buffer].data).view(np.float32)  # too small to be worth integers
        for tensor in model.subgraphs[0].tensors
        if model.buffers[tensor.buffer].data is not None
        and len(tensor.shape) == 2
        and min(tensor.shape) > 1
        and tensor.type == schema.TensorType.FLOAT32
    ]
    assert kernels
    assert np.mean(np.concatenate(kernels) == 0) >= 0.24
    assert "<table>" in (bundle.path / "report.html").read_text()


def test_all_submodels_start_from_one_student(bundle: Bundle, settings: ExportSettings) -> None:
    report = json.loads((bundle.path / "report.json").read_text())
    assert report["accuracies"]["common student"] > 0.5
    made = [path.name.partition("-")[0] for path in settings.cache_folder.iterdir()]
    assert (made.count("importance"), made.count("surgery"), made.count("branch")) == (6, 1, 2)
    trained = [
        json.loads(path.read_text())["made_from"]["parameters"]
        for path in settings.cache_folder.glob("retrain-*/result.json")
    ]
    cooled = sorted((made["name"], made["cool_down"]) for made in trained)
    # The student that all start from, and the one that stands for itself.
    assert cooled == [("single", False), ("single", True), ("submodel-0", True), ("submodel-1", True)]


def test_the_fusion_weights_are_there_to_inspect(bundle: Bundle) -> None:
    weights = load_file(bundle.file("fusion.safetensors"))
    total = sum(submodel.feature_size for submodel in bundle.manifest.submodels)
    assert weights["layer_0/kernel"].shape == (total + 2, total)
    assert weights["head/kernel"].shape[1] == 6


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(bundle: Bundle, settings: ExportSettings) -> None:
    again = export(replace(settings, out=settings.out + "-again"), Told())
    first, second = (
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (bundle.path, again)
    )
    assert first.keys() == second.keys()
    differing = [str(name) for name in first if first[name] != second[name] and name.suffix != ".html"]
    assert differing == ["report.json"]  # which holds the seconds


def test_ctrl_c_leaves_nothing_but_what_was_finished(settings: ExportSettings, tmp_path: Path) -> None:
    out = tmp_path / "out" / "bundle"
    command = [
        sys.executable,
        "-m",
        "edvit_tf.cli.main",
        "export",
        "--json",
        "--devices",
        "2",
        "--share",
        "0.9",
        "--widths",
        "uniform",
    ]
    command += ["--model", settings.model, "--data", settings.data, "--out", str(out), "--epochs", "500"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "teacher" in line:
            break
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(output)["error"]["code"] == "interrupted"
    assert [path.name for path in out.parent.iterdir()] == ["edvit-cache"]
    assert [path.name for path in out.parent.rglob("*.part")] == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


class TestPlan:
    def test_a_preset_needs_no_trained_teacher(self) -> None:
        plan = plan_export(ExportSettings(model="vit-b16", data="fashion_mnist", devices=10, out="x"))
        assert (plan.widths.heads, plan.widths.width) == (2, 128)  # the paper's 9.55 MB of 327 each
        assert len(plan.submodels) == 10
        planned = plan.to_json(memory_mb=20)
        assert str(planned["submodels"]).count("'fits': True") == 10
        plan.check_memory(20)
        with pytest.raises(PlanError, match="and a device has 1: keep fewer heads"):
            plan.check_memory(1)
        with pytest.raises(ModelError, match="No trained vit-b16 ships"):
            load_teacher("vit-b16", plan.classes)

    def test_the_estimate_is_near_what_is_made(self, settings: ExportSettings, bundle: Bundle) -> None:
        for planned, made in zip(plan_export(settings).submodels, bundle.manifest.submodels, strict=True):
            variant = made.variant()
            assert (planned.config.parameters, planned.config.macs) == (made.parameters, made.macs)
            assert planned.bytes == pytest.approx(variant.bytes, rel=0.5)
            assert planned.arena_bytes == pytest.approx(variant.arena_bytes, rel=0.6)


REFUSALS: list[tuple[dict[str, object], type[EdvitError], str]] = [
    ({"devices": 7}, UsageError, "6 classes cannot be split over 7 devices"),
    ({"format": "int7"}, UsageError, "no format 'int7'"),
    ({"model": "vit-xl"}, ModelError, "There is no model vit-xl: give one of"),
    ({"model": "gone.safetensors"}, ModelError, "no model file"),
    ({"data": "/nowhere"}, DataError, "neither a folder"),
    ({"model": "fashion-vit"}, UsageError, "was trained on other classes"),
    ({"share": 0.01}, PlanError, "allow more bytes"),
    ({"widths": "1x1x8x9999"}, PlanError, "keep 9999 MLP units, and the model has"),
    ({"random_weights": True}, UsageError, "needs one of the presets"),
    ({"memory_mb": 0.001}, PlanError, "a device has 0.001"),
    ({"groups": "ant,bee;cat,dog,elk"}, UsageError, "'fox' is named nowhere"),
    ({"groups": "ant,bee,cat,dog,elk,fox"}, UsageError, "names 1 groups for 2 devices"),
    ({"groups": "ant,bee,cow;cat,dog,elk,fox"}, UsageError, "names 'cow', which is no class"),
]


@pytest.mark.parametrize(("change", "kind", "message"), REFUSALS)
def test_what_cannot_be_made_is_refused_before_anything_is_trained(
    settings: ExportSettings, tmp_path: Path, change: dict[str, object], kind: type[EdvitError], message: str
) -> None:
    told = Told()
    with pytest.raises(kind, match=message):
        export(replace(settings, out=str(tmp_path / "bundle"), **change), told)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    assert not {"teacher", "sub-models"} & set(told.stages)


def test_a_teacher_no_better_than_chance_teaches_nobody(
    settings: ExportSettings, teacher: Checkpoint, tmp_path: Path
) -> None:
    file = tmp_path / "untrained.safetensors"
    zeros = {name: np.zeros_like(weight) for name, weight in teacher.weights.items()}
    save(file, Checkpoint(teacher.config, zeros, teacher.labels))
    with pytest.raises(TrainingError, match=r"right on 16\.7% of 72 .* on 16\.7%: it has nothing to teach"):
        export(replace(settings, model=str(file), out=str(tmp_path / "bundle")), Told())
    assert not (tmp_path / "bundle").exists()


def test_what_stands_there_already_is_kept(settings: ExportSettings, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        export(replace(settings, out=str(tmp_path)), Told())
    assert (tmp_path / "precious").read_text() == "mine"


GIVEN = {"model": "m", "data": "d", "devices": 3, "out": "o"}


class TestSettings:
    def test_the_command_line_wins_over_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "export.yaml"
        file.write_text("devices: 5\nsparsity: 0.3\nproxy-images: 8\nbaselines: true\nrate: 1\nheads: null\n")
        settings = combine(file, {**GIVEN, "sparsity": None, "seed": 9})
        assert (settings.devices, settings.sparsity, settings.proxy_images, settings.seed) == (3, 0.3, 8, 9)
        assert settings.baselines is True
        assert settings.rate == 1.0
        assert isinstance(settings.rate, float)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("devcies: 3", r"unknown options \(devcies\)"),
            ("devices: three", "devices is 'three', and it must be of type int"),
            ("baselines: 1", "baselines is 1, and it must be of type bool"),
            ("- devices", "must map option names"),
            ("devices: [", "is not a YAML file"),
            ("sparsity: 1.0", "--sparsity is 1.0"),
        ],
    )
    def test_a_wrong_file_is_one_sentence(self, tmp_path: Path, text: str, message: str) -> None:
        file = tmp_path / "export.yaml"
        file.write_text(text)
        with pytest.raises(UsageError, match=message):
            combine(file, GIVEN)

    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="is not a YAML file that can be read"):
            combine(tmp_path / "none.yaml", GIVEN)

    def test_required_options_are_named(self) -> None:
        with pytest.raises(UsageError, match="--model and --devices must be given"):
            combine(None, {"data": "d", "out": "o"})
        assert combine(None, {**GIVEN, "out": None}, out_needed=False).out == ""

    @pytest.mark.parametrize(
        "change",
        [
            {"devices": 0},
            {"rate": 0.0},
            {"sparsity": -0.1},
            {"sparsity": "1:4"},
            {"qat_epochs": -1},
            {"widths": "narrow"},
            {"augment": "blur"},
            {"budget": 0.0},
            {"distillation": 1.5},
            {"seed": -1},
            {"heads": 0},
            {"matching": -1.0},
            {"others": 0.0},
            {"importance": "guess"},
            {"start": "guess"},
        ],
    )
    def test_values_out_of_range_name_their_option(self, change: dict[str, object]) -> None:
        (name,) = change
        with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} is"):
            combine(None, {**GIVEN, **change})

    def test_widths_in_numbers_leave_nothing_to_heads(self) -> None:
        with pytest.raises(UsageError, match="--widths 1x1x8x8 says how many heads are kept"):
            combine(None, {**GIVEN, "widths": "1x1x8x8", "heads": 1})

    def test_seeds_differ_by_purpose_and_follow_the_one_seed(self) -> None:
        one, two = (combine(None, {**GIVEN, "seed": seed}) for seed in (1, 2))
        seeds = {
            s.seed_for(*path)
            for s in (one, two)
            for path in (("split",), ("submodel-0", "retrain"), ("fusion",))
        }
        assert len(seeds) == 6
        assert one.seed_for("split") == one.seed_for("split")
