"""`edvit-tf benchmark` on the golden bundle, on single files, and on files that do not work."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edvit_tf.bundle.reader import open_bundle
from edvit_tf.cli.main import main
from edvit_tf.runtime.benchmark import Candidate, benchmark
from edvit_tf.runtime.ensemble import run_many

GOLDEN = Path(__file__).parents[1] / "vectors" / "bundle"
PICTURES_OF_A_CLASS = 4
F32 = GOLDEN / "submodels" / "submodel-0.f32.tflite"
INT8 = GOLDEN / "submodels" / "submodel-0.int8.tflite"


@pytest.fixture
def toy_pictures(tmp_path: Path) -> Path:
    """A train and a test folder of random pictures, a folder for each of the golden bundle's classes."""
    manifest = open_bundle(GOLDEN).manifest
    generator = np.random.default_rng(2)
    for part in ("train", "test"):
        for label in manifest.classes:
            folder = tmp_path / "data" / part / label
            folder.mkdir(parents=True)
            for index in range(PICTURES_OF_A_CLASS):
                shape = (manifest.input.height, manifest.input.width)
                Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(
                    folder / f"{index}.png"
                )
    return tmp_path / "data"


def pictures_of(folder: Path, classes: tuple[str, ...]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    files = [
        (file, index) for index, label in enumerate(classes) for file in (folder / "test" / label).iterdir()
    ]
    images = np.stack([np.asarray(Image.open(file))[..., np.newaxis] for file, _ in files])
    return images, np.asarray([index for _, index in files])


def test_every_variant_of_a_bundle_beside_its_teacher(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", str(GOLDEN), "--rounds", "1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    teacher, *rows = answer["rows"]
    assert teacher["whole"] is True
    assert [row["name"] for row in rows] == [
        f"submodels/submodel-{index}.{made_in}.tflite" for index in (0, 1) for made_in in ("f32", "int8")
    ]
    for row in rows:
        assert row["status"] == "ok"
        assert row["bytes"] == (GOLDEN / row["name"]).stat().st_size
        assert row["size_ratio"] == pytest.approx(teacher["bytes"] / row["bytes"])
        assert row["speed_ratio"] == pytest.approx(teacher["min_ms"] / row["min_ms"])
        assert 0 < row["min_ms"] <= row["p50_ms"] <= row["p95_ms"]
        assert row["partitions"] >= 1
        assert row["accuracy"] is not None


def test_a_baseline_in_two_formats_gives_the_ratio_to_its_best(capsys: pytest.CaptureFixture[str]) -> None:
    whole = GOLDEN / "submodels" / "submodel-1.f32.tflite"
    second = GOLDEN / "submodels" / "submodel-1.int8.tflite"
    arguments = ["benchmark", str(F32), "--baseline", str(whole), "--baseline", str(second), "--rounds", "1"]
    assert main([*arguments, "--json"]) == 0
    first, other, row = json.loads(capsys.readouterr().out)["rows"]
    assert row["speed_ratio"] == pytest.approx(first["min_ms"] / row["min_ms"])
    best = min(first["min_ms"], other["min_ms"])
    assert row["speed_ratio_best"] == pytest.approx(best / row["min_ms"])
    assert row["size_ratio"] == pytest.approx(first["bytes"] / row["bytes"])


def test_a_file_that_is_cut_off_costs_a_row_and_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(F32.read_bytes()[:3000])
    assert main(["benchmark", str(cut), str(INT8), "--rounds", "1", "--json"]) == 1
    table, error = map(json.loads, capsys.readouterr().out.splitlines())
    broken, whole = table["rows"]
    assert (broken["status"], broken["min_ms"]) == ("failed", None)
    assert whole["status"] == "ok"
    assert error["error"]["code"] == "benchmark.status"


def test_a_variant_that_answers_wrongly_is_exported_but_invalid(
    tmp_path: Path,
) -> None:
    other = tmp_path / "other.tflite"
    shutil.copy(GOLDEN / "submodels" / "submodel-1.f32.tflite", other)
    vector = GOLDEN / "vectors" / "submodel-0.f32.safetensors"
    (row,) = benchmark([Candidate("other", other, vector)], rounds=1)
    assert row.status == "invalid"
    assert row.reason
    assert row.latency is None


def test_a_floor_that_is_not_reached_fails_after_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", str(GOLDEN), "--rounds", "1", "--floor", "0.99"]) == 1
    captured = capsys.readouterr()
    assert "submodel-0.f32" in captured.out
    assert "Below the floor of 99.00%" in captured.err


def test_accuracies_are_measured_on_the_test_pictures(
    toy_pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["benchmark", str(GOLDEN), "--rounds", "1", "--json", "--data", str(toy_pictures)]
    assert main(arguments) == 0
    bundle = open_bundle(GOLDEN)
    teacher, *rows = json.loads(capsys.readouterr().out)["rows"]
    images, labels = pictures_of(toy_pictures, bundle.manifest.classes)
    whole = run_many(bundle.file(bundle.manifest.teacher.file), images).logits.argmax(axis=1)
    assert teacher["accuracy"] == pytest.approx(np.mean(whole == labels))
    first = bundle.manifest.submodels[0]
    group = [bundle.manifest.classes.index(label) for label in first.classes]
    wanted = [group.index(label) if label in group else len(group) for label in labels]
    answers = run_many(bundle.file(first.variants[0].file), images).logits.argmax(axis=1)
    assert rows[0]["accuracy"] == pytest.approx(np.mean(answers == wanted))
    assert main([*arguments, "--floor", "1"]) == 1


def test_a_sub_model_alone_does_not_say_what_it_answers_for(
    toy_pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", str(F32), "--rounds", "1", "--data", str(toy_pictures)]) == 2
    assert "is in its bundle, so give that" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "Give a bundle's folder"),
        ([str(F32), "--floor", "0.5"], "only a bundle records"),
        ([str(F32), str(F32)], "is given twice"),
        (["--vit-b", "--data", "fashion_mnist"], "makes its own models"),
        (["nowhere.tflite"], "There is no file nowhere.tflite"),
        ([str(GOLDEN), str(F32)], "nothing beside it"),
        (["--vit-b", str(F32)], "makes its own models"),
        ([str(F32), "--processor-time"], "is for --vit-b and one thread"),
        (["--vit-b", "--threads", "2", "--processor-time"], "several would be added up"),
    ],
)
def test_bad_arguments_are_one_sentence(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", *arguments]) == 2
    assert reason in capsys.readouterr().err
