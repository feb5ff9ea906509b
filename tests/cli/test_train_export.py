"""What train and export refuse or plan before any TensorFlow is imported; test_whole_way.py runs them."""

import json
from pathlib import Path
from typing import Any

import pytest

from edvit_tf.cli.main import main


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    status = main([*arguments, "--json"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    return status, json.loads(lines[0])


PLAN = ("export", "--dry-run", "--model", "vit-b16", "--data", "fashion_mnist")


def test_a_dry_run_says_sizes_and_whether_they_fit(capsys: pytest.CaptureFixture[str]) -> None:
    status, plan = asked(capsys, *PLAN, "--devices", "10", "--memory-mb", "16")
    assert status == 0
    assert plan["teacher"]["macs"] > 15e9
    assert plan["heads"] == 2
    assert len(plan["submodels"]) == 10
    assert len({label for submodel in plan["submodels"] for label in submodel["classes"]}) == 10
    assert all(submodel["fits"] for submodel in plan["submodels"])
    # The paper's figure: 9.55 MiB each, 34 times below the whole.
    assert plan["submodels"][0]["f32_bytes"] / 2**20 == pytest.approx(9.55, abs=0.1)


def test_a_dry_run_that_does_not_fit_says_by_how_much(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PLAN, "--devices", "3", "--memory-mb", "2"]) == 1
    output = capsys.readouterr()
    assert "submodel-2" in output.out  # the table is shown all the same
    assert "and a device has 2: keep fewer heads" in output.err


def test_a_plan_can_stand_in_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "export.yaml"
    file.write_text("model: vit-s16\ndata: fashion_mnist\ndevices: 5\nheads: 1\n")
    status, plan = asked(capsys, "export", "--dry-run", "--config", str(file), "--devices", "2")
    assert status == 0
    assert (len(plan["submodels"]), plan["heads"], plan["teacher"]["name"]) == (2, 1, "vit-s16")


REFUSED = [
    (("export", "--model", "fashion-vit"), 2, "--data and --devices and --out must be given"),
    ((*PLAN, "--devices", "11"), 2, "10 classes cannot be split over 11 devices"),
    ((*PLAN, "--devices", "3", "--format", "edgetpu"), 2, "use --target coral"),
    ((*PLAN, "--devices", "3", "--heads", "13"), 1, "the model has 12"),
    (("train", "--preset", "vit", "--data", "fashion_mnist", "--out", "x.safetensors"), 2, "no preset vit"),
    (("train", "--preset", "fashion-vit", "--data", "fashion_mnist", "--out", "x.keras"), 2, "must end in"),
    (
        ("train", "--preset", "fashion-vit", "--data", "d", "--out", "x.safetensors", "--rate", "0"),
        2,
        "--rate is 0.0",
    ),
    (
        ("train", "--preset", "fashion-vit", "--data", "/nowhere", "--out", "x.safetensors"),
        1,
        "neither a folder",
    ),
]


@pytest.mark.parametrize(("arguments", "expected", "message"), REFUSED)
def test_what_is_wrong_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    expected: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, answer = asked(capsys, *arguments)
    assert (status, message in answer["error"]["message"]) == (expected, True), answer
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_stands_there_is_kept(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    out.write_text("precious")
    status, answer = asked(
        capsys, "train", "--preset", "fashion-vit", "--data", "fashion_mnist", "--out", str(out)
    )
    assert (status, answer["error"]["code"]) == (2, "usage")
    assert out.read_text() == "precious"
