"""Sound files and the pictures they become; that training agrees is in tests/build/test_spectrogram.py."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edvit_tf.bundle.manifest import SoundSpec
from edvit_tf.bundle.sound import (
    fitted,
    log_mel,
    mel_weights,
    prepare_sound,
    read_sound,
    sound_length,
    specify,
)
from edvit_tf.errors import DataError, MissingPackage
from edvit_tf.vit.config import ImageSize

SIZE = ImageSize(40, 50, 1)
SPEC = specify(16000, 1.0, SIZE)


def sine(frequency: float, rate: int = 16000, seconds: float = 1.0, level: float = 1.0) -> np.ndarray:
    return level * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


class TestReading:
    @pytest.mark.parametrize("suffix", ["wav", "flac", "au"])
    def test_formats(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a.{suffix}"
        soundfile.write(path, sine(440, level=0.5), 16000, subtype="PCM_16")
        np.testing.assert_allclose(read_sound(path, 16000), sine(440, level=0.5), atol=1e-4)
        assert sound_length(path) == (16000, 1.0)

    def test_channels_are_averaged(self, tmp_path: Path) -> None:
        path = tmp_path / "a.wav"
        soundfile.write(path, np.stack([sine(440), np.zeros(16000)], axis=1), 16000, subtype="DOUBLE")
        np.testing.assert_allclose(read_sound(path, 16000), sine(440) / 2)

    def test_another_rate_is_converted(self, tmp_path: Path) -> None:
        path = tmp_path / "a.wav"
        soundfile.write(path, sine(440, rate=44100), 44100, subtype="DOUBLE")
        converted = read_sound(path, 16000)
        assert len(converted) == 16000
        np.testing.assert_allclose(converted[500:-500], sine(440)[500:-500], atol=1e-3)

    @pytest.mark.parametrize("content", [b"", b"RIFF and no more", b"\x89PNG"])
    def test_broken_files(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a.wav"
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.wav is no sound that can be read"):
            read_sound(path, 16000)

    def test_no_file_no_samples_no_numbers(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="There is no sound at"):
            read_sound(tmp_path / "none.wav", 16000)
        soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
        soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 16000, subtype="FLOAT")
        for name in ("empty.wav", "nan.wav"):
            with pytest.raises(DataError, match="no samples, or some that are no numbers"):
                read_sound(tmp_path / name, 16000)

    def test_without_the_extra(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "soundfile", None)
        with pytest.raises(MissingPackage, match=r"pip install 'edvit-tf\[sound\]'"):
            read_sound(tmp_path / "a.wav", 16000)


class TestPicture:
    def test_the_middle_is_taken_and_silence_put_around(self) -> None:
        assert fitted(np.arange(16003.0), SPEC, SIZE)[[0, -1]].tolist() == [1, 16000]
        short = fitted(np.ones(4001), SPEC, SIZE)
        assert np.flatnonzero(short)[[0, -1]].tolist() == [5999, 9999]
        assert len(short) == 16000

    def test_a_sine_of_full_scale_is_white_in_its_band_alone(self) -> None:
        weights = mel_weights(SPEC, SIZE.height)
        band = 20
        bin_ = int(weights[:, band].argmax())
        picture = log_mel(sine(bin_ * SPEC.sample_rate / SPEC.fft), SPEC, SIZE)[:, 5:-5]
        assert (picture.argmax(axis=0) == band).all()
        assert picture[band].min() > 250
        assert picture[band + 4 :].max() < 130
        assert picture[: band - 4].max() < 130

    def test_twenty_decibels_less_are_a_quarter_of_the_range_darker(self) -> None:
        noise = np.random.default_rng(1).normal(0, 0.1, 16000)
        loud, quiet = log_mel(noise, SPEC, SIZE), log_mel(noise / 10, SPEC, SIZE)
        inside = (quiet > 0) & (loud < 255)
        assert inside.mean() > 0.8
        np.testing.assert_allclose((loud - quiet)[inside], 255 * 20 / 80, atol=1e-6)

    def test_silence_is_black(self) -> None:
        assert not prepare_sound(np.zeros(10), SPEC, SIZE).any()

    def test_three_channels_are_the_same(self) -> None:
        picture = prepare_sound(sine(1000), SPEC, ImageSize(40, 50, 3))
        assert picture.shape == (40, 50, 3)
        assert picture.dtype == np.uint8
        assert (picture == picture[..., :1]).all()


@pytest.mark.parametrize(
    ("rate", "seconds", "size"),
    [(16000, 1.0, SIZE), (22050, 3.0, ImageSize(28, 28, 1)), (48000, 10.0, ImageSize(224, 224, 3))],
)
def test_every_band_of_a_specification_hears_something(rate: int, seconds: float, size: ImageSize) -> None:
    spec: SoundSpec = specify(rate, seconds, size)
    assert (mel_weights(spec, size.height).max(axis=0) > 0).all()
    assert abs(spec.hop * size.width / rate - seconds) < 0.02 * seconds
