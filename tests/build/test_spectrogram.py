"""What training sees of a sound and what the aggregator computes of it are one picture."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edvit_tf.build.data.spectrogram import log_mels
from edvit_tf.bundle.manifest import SoundSpec
from edvit_tf.bundle.sound import log_mel, specify, to_picture
from edvit_tf.vit.config import ImageSize


@st.composite
def specifications(draw: st.DrawFn) -> tuple[SoundSpec, ImageSize]:
    rate = draw(st.sampled_from([4000, 8000, 16000, 22050, 44100]))
    window = 2 * draw(st.integers(8, 1024))
    fft = 1 << (window - 1).bit_length() + draw(st.integers(0, 2))
    low = draw(st.floats(0, 400))
    spec = SoundSpec(
        sample_rate=rate,
        window=window,
        hop=draw(st.integers(1, 2 * window)),
        fft=fft,
        low_hz=low,
        high_hz=draw(st.floats(low + 200, rate / 2)),
        low_db=draw(st.floats(-120, -40)),
        high_db=draw(st.floats(-20, 20)),
    )
    return spec, ImageSize(draw(st.integers(1, 64)), draw(st.integers(1, 32)), 1)


@given(specifications(), st.integers(0, 2**32 - 1), st.floats(-8, 0), st.booleans())
@settings(max_examples=60)
def test_both_sides_agree_before_rounding(
    case: tuple[SoundSpec, ImageSize], seed: int, level: float, tone: bool
) -> None:
    spec, size = case
    generator = np.random.default_rng(seed)
    length = size.width * spec.hop
    clips = generator.uniform(-1, 1, (2, length)) * 10**level
    if tone:
        clips += np.sin(2 * np.pi * generator.uniform(0.01, 0.49) * np.arange(length))
    trained = log_mels(clips, spec, size)
    inferred = np.stack([log_mel(clip, spec, size) for clip in clips])
    assert trained.shape == (2, size.height, size.width)
    assert np.abs(trained - inferred).max() <= 1e-4


def test_of_a_real_length_the_bytes_are_the_same() -> None:
    size = ImageSize(40, 50, 3)
    spec = specify(16000, 1.0, size)
    clip = np.random.default_rng(1).normal(0, 0.1, size.width * spec.hop)
    trained = to_picture(log_mels(clip[np.newaxis], spec, size)[0], size)
    np.testing.assert_array_equal(trained, to_picture(log_mel(clip, spec, size), size))
    assert len(np.unique(trained)) > 50
