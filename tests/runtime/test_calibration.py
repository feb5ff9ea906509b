import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edvit_tf.runtime.calibration import expected_calibration_error


def test_it_is_the_gap_between_confidence_and_accuracy() -> None:
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.4, 0.6]] * 10, np.float32)
    # Of ten answers at 0.9 six are right, of ten at 0.6 six: the first bin is 0.3 off, the second not at all.
    labels = np.array([0] * 6 + [1] * 4 + [1] * 6 + [0] * 4)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.15, abs=1e-6)


@given(st.integers(0, 2**31), st.integers(2, 6))
def test_labels_drawn_from_the_probabilities_are_calibrated(seed: int, classes: int) -> None:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(classes), 20_000).astype(np.float32)
    drawn = (probabilities.cumsum(axis=1) > generator.random((20_000, 1))).argmax(axis=1)
    assert expected_calibration_error(probabilities, drawn) < 0.03
    assert expected_calibration_error(probabilities, (probabilities.argmin(axis=1))) > 0.3
