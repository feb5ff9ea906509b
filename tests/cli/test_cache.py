"""`edvit-tf cache`: what lies there, and less of it."""

import json
import os
from pathlib import Path

import pytest

from edvit_tf.build.store import VARIABLE, Recipe, Result, open_store
from edvit_tf.cli.main import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "cache"
    with open_store(place) as store:
        for index, stage in enumerate(("teacher-flatbuffer", "retrain", "retrain")):
            made = store.make(Recipe(stage, {"number": index}), write)
            os.utime(made.folder, (1_700_000_000 + index, 1_700_000_000 + index))
    return place


def write(result: Result) -> None:
    result.path("weights").write_bytes(bytes(1_000_000))


def test_the_object_that_other_programs_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", str(folder), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["folder"] == str(folder)
    assert answer["removed_bytes"] == 0
    assert answer["bytes"] == sum(row["bytes"] for row in answer["results"])
    assert answer["results"][0]["name"].startswith("teacher-flatbuffer-")
    assert answer["results"][0]["used"] == "2023-11-14T22:13:20+00:00"
    assert len(answer["results"]) == 3


def test_a_person_reads_stages_and_how_to_remove_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, str(folder))
    assert main(["cache"]) == 0
    text = capsys.readouterr().out
    for part in ("teacher-flatbuffer", "retrain", "2.0", f"edvit-tf cache {folder} --limit-mb 0"):
        assert part in text


def test_what_was_used_longest_ago_goes_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", str(folder), "--limit-mb", "2.5", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["removed_bytes"] > 1_000_000
    assert [row["name"].rpartition("-")[0] for row in answer["results"]] == ["retrain", "retrain"]
    assert main(["cache", str(folder), "--limit-mb", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"] == []


def test_another_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("precious")
    assert main(["cache", str(tmp_path), "--limit-mb", "0"]) == 2
    assert "is no cache of an export" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "precious"
