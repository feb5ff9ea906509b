"""Data sets of sound: folders, Speech Commands' layout and GTZAN's."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from edvit_tf.build.data import class_names, load, load_test
from edvit_tf.bundle.sound import specify
from edvit_tf.errors import DataError
from edvit_tf.vit.config import ImageSize

RATE = 8000
WORDS = {"low": 300.0, "high": 2000.0}


@pytest.fixture(autouse=True)
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "given"
    folder.mkdir()
    monkeypatch.setenv("EDVIT_DATA", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def tone(path: Path, frequency: float, seed: int, *, rate: int = RATE, seconds: float = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    samples = 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)
    soundfile.write(path, samples + generator.normal(0, 0.01, len(samples)), rate)


def word_folder(folder: Path, *, each: int = 10, suffix: str = ".wav", rate: int = RATE) -> Path:
    for word, frequency in WORDS.items():
        for number in range(each):
            tone(folder / word / f"{number:02}{suffix}", frequency, number, rate=rate)
    return folder


class TestFolder:
    def test_sounds_become_pictures_of_their_usual_length(self, tmp_path: Path) -> None:
        dataset = load(word_folder(tmp_path / "words"), seed=1)
        assert dataset.classes == ("high", "low")
        assert dataset.image == ImageSize(40, 48, 1)
        assert dataset.sound == specify(RATE, 0.5, dataset.image)
        assert not dataset.mirrored
        brightest = dataset.train.images.mean(axis=(2, 3)).argmax(axis=1)
        assert (brightest[dataset.train.labels == 0] > brightest[dataset.train.labels == 1].max()).all()

    def test_the_test_split_is_computed_as_the_aggregator_does(self, tmp_path: Path) -> None:
        folder = word_folder(tmp_path / "words" / "train").parent
        word_folder(folder / "test", each=10)
        size = ImageSize(20, 24, 3)
        whole = load(folder, seed=1, image=size)
        test, _ = load_test(folder, seed=1, image=size, sound=whole.sound)
        assert test.images.shape == (20, 20, 24, 3)
        trained = {picture.tobytes() for picture in (*whole.train.images, *whole.validation.images)}
        assert {picture.tobytes() for picture in test.images} == trained  # the same sounds, the same pictures

    def test_other_rates_are_converted(self, tmp_path: Path) -> None:
        folder = word_folder(tmp_path / "words", suffix=".flac", rate=2 * RATE)
        spec = specify(RATE, 0.5, ImageSize(40, 48, 1))
        assert load(folder, seed=1, sound=spec).sound == spec

    def test_a_broken_file_is_skipped_and_named(self, tmp_path: Path) -> None:
        folder = word_folder(tmp_path / "words", each=30)
        (folder / "low" / "99.wav").write_bytes(b"RIFF")
        dataset = load(folder, seed=1)
        assert [Path(item.file).name for item in dataset.skipped] == ["99.wav"]

    def test_pictures_and_sounds_are_not_mixed(self, tmp_path: Path) -> None:
        folder = word_folder(tmp_path / "words")
        (folder / "low" / "cover.png").write_bytes(b"")
        with pytest.raises(DataError, match="has pictures and sounds"):
            load(folder, seed=1)

    def test_a_model_of_sound_on_pictures(self, data_folder: Path) -> None:
        spec = specify(RATE, 0.5, ImageSize(8, 8, 1))
        with pytest.raises(DataError, match="takes sound and the data is pictures"):
            load(data_folder, seed=1, sound=spec)


class TestSpeechCommands:
    @pytest.fixture
    def copy(self, given: Path) -> Path:
        folder = word_folder(given / "speech_commands_v0.02")
        names = [f"{word}/{number:02}.wav" for word in WORDS for number in range(10)]
        (folder / "validation_list.txt").write_text("\n".join(names[7::10]) + "\n")
        (folder / "testing_list.txt").write_text("\n".join([*names[8::10], *names[9::10]]) + "\n")
        tone(folder / "_background_noise_" / "hum.wav", 50, 1, seconds=3)
        return folder

    @pytest.mark.usefixtures("copy")
    def test_its_lists_divide_it(self) -> None:
        dataset = load("speech_commands", seed=1)
        assert dataset.classes == class_names("speech_commands") == ("high", "low")
        assert (len(dataset.train), len(dataset.validation)) == (14, 2)
        assert len(load_test("speech_commands", seed=1, sound=dataset.sound)[0]) == 4
        assert dataset.sound == specify(16_000, 1.0, dataset.image)

    def test_any_folder_may_have_such_lists(self, copy: Path) -> None:
        assert len(load(copy, seed=1).validation) == 2

    def test_a_class_that_the_lists_leave_empty(self, copy: Path) -> None:
        (copy / "validation_list.txt").write_text("low/07.wav\n")
        with pytest.raises(DataError, match="leave a class without files"):
            load("speech_commands", seed=1)


class TestGtzan:
    def test_a_track_is_ten_pictures_of_one_part(self, given: Path) -> None:
        for index, genre in enumerate(class_names_of_gtzan()):
            for number in range(4):
                file = given / "genres" / genre / f"{genre}.{number:05}.au"
                tone(file, 200 + 100 * index, number, rate=2205, seconds=3)
        dataset = load("gtzan", seed=1, image=ImageSize(16, 16, 1))
        assert dataset.classes == class_names("gtzan")
        assert dataset.counts.tolist() == [20] * 10  # of four tracks one is for the test, one for validation
        assert len(load_test("gtzan", seed=1, image=dataset.image, sound=dataset.sound)[0]) == 100

    def test_it_is_asked_for(self) -> None:
        with pytest.raises(DataError, match="GTZAN cannot be downloaded: put its folder genres"):
            load("gtzan", seed=1)


def class_names_of_gtzan() -> tuple[str, ...]:
    return "blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock"
