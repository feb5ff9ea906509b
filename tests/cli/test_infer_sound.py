"""`edvit-tf infer` on a bundle of sound: the golden bundle, told that its pictures are of sound."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edvit_tf.bundle.reader import Bundle, open_bundle
from edvit_tf.bundle.sound import specify
from edvit_tf.bundle.writer import write_manifest
from edvit_tf.cli.main import main


@pytest.fixture
def sounding(bundle: Bundle, tmp_path: Path) -> Bundle:
    folder = tmp_path / "sounding"
    shutil.copytree(bundle.path, folder)
    spec = replace(bundle.manifest.input, sound=specify(16000, 0.5, bundle.manifest.input))
    write_manifest(folder, replace(bundle.manifest, input=spec))
    return open_bundle(folder)


def test_sounds_of_any_rate_are_classified(
    sounding: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    for name, rate in (("a.flac", 16000), ("b.wav", 44100)):
        samples = np.random.default_rng(1).normal(0, 0.1, rate)
        soundfile.write(folder / name, samples, rate)
    (folder / "notes.txt").write_text("no sound")
    assert main(["infer", "--local", str(sounding.path), str(folder), "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(answer["image"]).name for answer in answers] == ["a.flac", "b.wav"]
    assert all(answer["label"] in sounding.manifest.classes for answer in answers)


def test_a_picture_is_no_sound(sounding: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    assert main(["infer", "--local", str(sounding.path), str(tmp_path / "a.png"), "--json"]) == 1
    assert "is no sound that can be read" in json.loads(capsys.readouterr().out)["error"]["message"]
