"""The maker of spoken commands: a small data set, read back as Speech Commands is."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from edvit_tf.build.data import load, load_test
from edvit_tf.bundle.sound import read_sound
from edvit_tf.errors import MissingPackage, UsageError
from tools.make_spoken_commands import RATE, make

espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@espeak
def test_it_is_read_as_speech_commands_is(tmp_path: Path) -> None:
    assert make(tmp_path / "spoken", ("yes", "stop"), speakers=6, each=2, seed=1) == 24
    dataset = load(tmp_path / "spoken", seed=1)
    assert dataset.classes == ("stop", "yes")
    assert (len(dataset.train), len(dataset.validation)) == (16, 4)
    test, _ = load_test(tmp_path / "spoken", seed=1, sound=dataset.sound)
    assert test.counts(2).tolist() == [2, 2]
    assert dataset.sound is not None
    assert dataset.sound.sample_rate == RATE
    for path in (tmp_path / "spoken" / "yes").iterdir():
        samples = read_sound(path, RATE)
        assert len(samples) == RATE
        assert 0.01 < np.abs(samples).max() <= 1


@espeak
def test_no_speaker_is_in_two_parts(tmp_path: Path) -> None:
    make(tmp_path / "spoken", ("yes", "stop"), speakers=5, each=1, seed=3)
    speakers = [
        {line.rpartition("/")[2].partition("_nohash_")[0] for line in (tmp_path / "spoken" / name).open()}
        for name in ("testing_list.txt", "validation_list.txt")
    ]
    assert all(speakers)
    assert not speakers[0] & speakers[1]


@espeak
def test_the_seed_decides_every_byte(tmp_path: Path) -> None:
    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make(tmp_path / name, ("yes", "no"), speakers=4, each=1, seed=seed)
        made.append(contents(tmp_path / name))
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_without_espeak_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPackage, match="espeak-ng is not installed: sudo apt install espeak-ng"):
        make(tmp_path / "spoken", ("yes", "no"), speakers=4, each=1, seed=1)
    assert list(tmp_path.iterdir()) == []


@espeak
def test_nothing_is_overwritten(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        make(tmp_path, ("yes", "no"), speakers=4, each=1, seed=1)
    with pytest.raises(UsageError, match="two or more"):
        make(tmp_path / "spoken", ("yes",), speakers=4, each=1, seed=1)
    with pytest.raises(UsageError, match="4 to 91 speakers"):
        make(tmp_path / "spoken", ("yes", "no"), speakers=3, each=1, seed=1)
