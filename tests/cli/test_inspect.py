"""`edvit-tf inspect`, on the golden bundle and on one with a changed byte."""

import json
import shutil
from pathlib import Path

import pytest

from edvit_tf.cli.main import main

GOLDEN = Path(__file__).parent.parent / "vectors" / "bundle"


def test_the_object_that_other_programs_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(GOLDEN), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {"manifest", "verified", "signed", "submodels"}
    assert answer["manifest"] == json.loads((GOLDEN / "manifest.json").read_text("utf-8"))
    assert answer["verified"] is True
    assert answer["signed"] is False
    rows = [(row["id"], row["format"]) for row in answer["submodels"]]
    assert rows == [(f"submodel-{index}", made_in) for index in (0, 1) for made_in in ("f32", "int8")]
    for row in answer["submodels"]:
        assert set(row) == {"id", "format", "file", "bytes", "delegate_partitions", "operators"}
        assert row["bytes"] == (GOLDEN / row["file"]).stat().st_size
        assert row["delegate_partitions"] >= 1
        assert "FULLY_CONNECTED" in row["operators"]


def test_what_a_person_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(GOLDEN)]) == 0
    text = capsys.readouterr().out
    for part in ("golden, version 1", "Not signed", "8 × 8 × 1", "validation split", "submodel-1", "int8"):
        assert part in text


def test_a_changed_byte_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(GOLDEN, tmp_path / "bundle")
    path = tmp_path / "bundle" / "fusion.tflite"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert main(["inspect", str(tmp_path / "bundle"), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["error"]["code"] == "bundle.hash"
    assert "fusion.tflite" in answer["error"]["message"]
    assert main(["inspect", str(tmp_path / "bundle")]) == 1
    assert "fusion.tflite" in capsys.readouterr().err


def test_no_bundle_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "none"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "bundle.missing"
