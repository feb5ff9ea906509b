"""Log-mel pictures for training, through `tf.signal`: what `bundle/sound.py` computes for inference."""

import numpy as np
from numpy.typing import NDArray

from edvit_tf.bundle.manifest import SoundSpec
from edvit_tf.bundle.sound import WHITE, full_scale
from edvit_tf.vit.config import ImageSize
from edvit_tf.vit.keras import tf


def log_mels(samples: NDArray[np.float64], spec: SoundSpec, size: ImageSize) -> NDArray[np.float64]:
    """Grey levels of a batch before rounding: float64 [n, height, width], from 0 to 255.

    Args:
        samples: float64 [n, width × hop].
        spec: how.
        size: of the pictures.
    """
    spectrum = tf.signal.stft(samples, spec.window, spec.hop, spec.fft, pad_end=True)
    power = tf.math.square(tf.abs(spectrum)) / full_scale(spec)
    weights = tf.signal.linear_to_mel_weight_matrix(
        size.height, spec.fft // 2 + 1, spec.sample_rate, spec.low_hz, spec.high_hz, tf.float64
    )
    bands = tf.maximum(tf.matmul(power, weights), tf.constant(10 ** (spec.low_db / 10), tf.float64))
    decibels = 10 * tf.math.log(bands) / np.log(10.0)
    grey = WHITE * (decibels - spec.low_db) / (spec.high_db - spec.low_db)
    clipped: NDArray[np.float64] = tf.transpose(tf.clip_by_value(grey, 0, WHITE), (0, 2, 1)).numpy()
    return clipped
