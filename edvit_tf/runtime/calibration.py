"""How far a model's probabilities are from how often it is right."""

import numpy as np
from numpy.typing import NDArray

_BINS = 15


def expected_calibration_error(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Expected calibration error (Guo et al., arXiv 1706.04599) in 15 bins of equal width.

    The answers are binned by their confidence, the highest probability; the error is the mean over all
    answers of |share that is right - mean confidence| of their bin.

    Args:
        probabilities: f32 [n, classes], rows that add up to 1; n at least 1.
        labels: int64 [n].

    Returns:
        From 0, calibrated, to 1.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(bins, right - confidence, _BINS)
    return float(np.abs(gaps).sum() / len(labels))
