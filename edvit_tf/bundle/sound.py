"""Sound: from a file to the log-mel picture that every sub-model takes. No TensorFlow.

Training computes the same pictures through `tf.signal`; both work in float64 and agree before rounding.
"""

from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edvit_tf.bundle.manifest import SoundSpec
from edvit_tf.bundle.picture import PictureSize
from edvit_tf.errors import DataError, MissingPackage

SUFFIXES = (".wav", ".flac", ".au", ".ogg")
LARGEST_SAMPLES = 2**27  # of a file, all channels together: an hour of 16-bit CD sound is 2**28.2
LARGEST_WINDOW = 2**16  # as the manifest's schema says
WHITE = 255.0

Samples = NDArray[np.float64]


def read_sound(path: str | Path, sample_rate: int) -> Samples:
    """Read a sound file as one channel at `sample_rate` Hz: float64 [samples], full scale is ±1.

    Channels are averaged; another rate is converted (soxr, high quality).

    Raises:
        DataError: there is no such file, it is no sound that can be read, is empty, or is too long.
        MissingPackage: the extra `sound` is not installed.
    """
    return _decoded(Path(path), str(path), sample_rate)


def decode_sound(data: bytes, sample_rate: int) -> Samples:
    """Decode a sound that is not in a file; what and why not as `read_sound`.

    Raises:
        DataError: as `read_sound`.
        MissingPackage: likewise.
    """
    return _decoded(BytesIO(data), "what was sent", sample_rate)


def _decoded(source: Path | BytesIO, what: str, sample_rate: int) -> Samples:
    soundfile = _soundfile()
    if isinstance(source, Path) and not source.is_file():
        raise DataError(f"There is no sound at {source}: give the path of a sound file.")
    try:
        with soundfile.SoundFile(source) as file:
            if file.frames * file.channels > LARGEST_SAMPLES:
                raise DataError(f"{what} is longer than {LARGEST_SAMPLES} samples: give a shorter one.")
            samples: Samples = file.read(dtype="float64", always_2d=True).mean(axis=1)
            rate = file.samplerate
    except soundfile.SoundFileError:
        raise DataError(
            f"{what} is no sound that can be read: give a whole file of WAV, FLAC, AU or Ogg."
        ) from None
    if len(samples) == 0 or not np.isfinite(samples).all():
        raise DataError(f"{what} holds no samples, or some that are no numbers: give another file.")
    return samples if rate == sample_rate else _resampled(samples, rate, sample_rate)


def sound_length(path: Path) -> tuple[int, float]:
    """Sample rate in Hz and length in seconds of a sound file, from its header.

    Raises:
        DataError: it is no sound that can be read.
        MissingPackage: the extra `sound` is not installed.
    """
    soundfile = _soundfile()
    try:
        facts = soundfile.info(path)
    except soundfile.SoundFileError:
        raise DataError(f"{path} is no sound that can be read: give a whole file.") from None
    return int(facts.samplerate), float(facts.frames / facts.samplerate)


def fitted(samples: Samples, spec: SoundSpec, size: PictureSize) -> Samples:
    """As many samples as a picture shows, width × hop: the middle of longer sound, silence around shorter."""
    wanted = size.width * spec.hop
    if len(samples) >= wanted:
        start = (len(samples) - wanted) // 2
        return samples[start : start + wanted]
    before = (wanted - len(samples)) // 2
    return np.pad(samples, (before, wanted - len(samples) - before))


def log_mel(samples: Samples, spec: SoundSpec, size: PictureSize) -> Samples:
    """Grey levels before rounding: float64 [height, width], from 0 to 255.

    A frame starts at every hop; after the end there is silence. Its power spectrum under a periodic Hann
    window is scaled so that a sine of full scale gives 1, and summed in triangular bands on the HTK mel
    scale, 1127 · ln(1 + f / 700); the sum in dB is mapped from `low_db`…`high_db` to 0…255 and clipped.

    Args:
        samples: float64 [width × hop].
        spec: how.
        size: of the picture.
    """
    padded = np.pad(samples, (0, max(0, spec.window - spec.hop)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, spec.window)[:: spec.hop][: size.width]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(spec.window) / spec.window)
    spectrum = np.fft.rfft(frames * window, spec.fft)
    power = np.abs(spectrum) ** 2 / full_scale(spec)
    bands = power @ mel_weights(spec, size.height)
    decibels = 10 * np.log10(np.maximum(bands, 10 ** (spec.low_db / 10)))
    grey = WHITE * (decibels - spec.low_db) / (spec.high_db - spec.low_db)
    return np.clip(grey, 0, WHITE).T


def to_picture(grey: Samples, size: PictureSize) -> NDArray[np.uint8]:
    """Round grey levels [height, width] to uint8 [height, width, channels], every channel the same."""
    levels = np.rint(grey).astype(np.uint8)
    return np.repeat(levels[..., np.newaxis], size.channels, axis=-1)


def prepare_sound(samples: Samples, spec: SoundSpec, size: PictureSize) -> NDArray[np.uint8]:
    """The picture of a sound as a model takes it: uint8 [height, width, channels]."""
    return to_picture(log_mel(fitted(samples, spec, size), spec, size), size)


def specify(sample_rate: int, seconds: float, size: PictureSize) -> SoundSpec:
    """A specification for pictures of `seconds` of sound.

    Frames overlap by half and last 25 ms or more; the FFT is long enough for the lowest band to hold a
    frequency.
    """
    hop = max(1, round(seconds * sample_rate / size.width))
    window = min(2 * max(hop, round(0.0125 * sample_rate)), LARGEST_WINDOW)
    low, high = 20.0, sample_rate / 2
    step = (_mel(high) - _mel(low)) / (size.height + 1)
    narrowest = 700 * (np.exp((_mel(low) + step) / 1127) - 1) - low
    fft = min(1 << int(np.ceil(np.log2(max(window, sample_rate / narrowest)))), LARGEST_WINDOW)
    return SoundSpec(
        sample_rate=sample_rate,
        window=window,
        hop=hop,
        fft=fft,
        low_hz=low,
        high_hz=high,
        low_db=-80.0,
        high_db=0.0,
    )


def sound_of(details: Mapping[str, object]) -> SoundSpec | None:
    """The specification that a teacher's checkpoint was trained with; None for pictures."""
    given: Any = details.get("sound")
    return None if given is None else SoundSpec(**given)


def full_scale(spec: SoundSpec) -> float:
    """The power of a sine of full scale in its bin: its amplitude there is half the sum of the window."""
    return (spec.window / 4) ** 2


@lru_cache(maxsize=8)
def _weights(spec: tuple[float, ...], bands: int) -> Samples:
    sample_rate, fft, low_hz, high_hz = spec
    bins = _mel(np.linspace(0, sample_rate / 2, int(fft) // 2 + 1))[:, np.newaxis]
    edges = np.linspace(_mel(low_hz), _mel(high_hz), bands + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    weights: Samples = np.maximum(0, np.minimum(rising, falling))
    weights[0] = 0  # HTK leaves out the constant part
    return weights


def mel_weights(spec: SoundSpec, bands: int) -> Samples:
    """Weight of each frequency in each band: float64 [fft / 2 + 1, bands]."""
    return _weights((spec.sample_rate, spec.fft, spec.low_hz, spec.high_hz), bands)


def _mel(frequency: Any) -> Any:
    return 1127 * np.log1p(np.asarray(frequency) / 700)


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the wheel without libsndfile
        raise MissingPackage(
            f"Sound needs soundfile ({error}): pip install 'edvit-tf[sound]', and where that has no wheel, "
            "sudo apt install libsndfile1"
        ) from None
    return soundfile


def _resampled(samples: Samples, rate: int, wanted: int) -> Samples:
    try:
        import soxr
    except ImportError:
        raise MissingPackage(
            f"The sound has {rate} Hz and {wanted} are wanted: pip install 'edvit-tf[sound]'"
        ) from None
    resampled: Samples = soxr.resample(samples, rate, wanted, quality="HQ")
    return resampled
