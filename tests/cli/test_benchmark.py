"""`edvit-tf benchmark` on the golden bundle, on single files, and on files that do not work."""

import json
import shutil
from pathlib import Path

import pytest

from edvit_tf.cli.main import main
from edvit_tf.runtime.benchmark import Candidate, benchmark

GOLDEN = Path(__file__).parents[1] / "vectors" / "bundle"
F32 = GOLDEN / "submodels" / "submodel-0.f32.tflite"
INT8 = GOLDEN / "submodels" / "submodel-0.int8.tflite"


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


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "Give a bundle's folder"),
        ([str(F32), "--floor", "0.5"], "only a bundle records"),
        ([str(F32), str(F32)], "is given twice"),
        (["nowhere.tflite"], "There is no file nowhere.tflite"),
        ([str(GOLDEN), str(F32)], "nothing beside it"),
        (["--vit-b", str(F32)], "makes its own models"),
    ],
)
def test_bad_arguments_are_one_sentence(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", *arguments]) == 2
    assert reason in capsys.readouterr().err
