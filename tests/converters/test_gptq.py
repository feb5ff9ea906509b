"""Rounding that suits what a product reads."""

import numpy as np
from edvit_converters.gptq import LEVELS, round_kernel
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

GENERATOR = np.random.default_rng(0)
# Inputs that go together, as a layer's do, and some that say little.
READ = GENERATOR.standard_normal((400, 8)) @ GENERATOR.standard_normal(
    (8, 48)
) + 0.1 * GENERATOR.standard_normal((400, 48))
MOMENTS = READ.T @ READ


def moved(kernel: NDArray[np.float32], stored: NDArray[np.float32]) -> float:
    return float(np.square(READ @ (kernel - stored).T).sum())


def plain(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    scale = np.abs(kernel).max(axis=1, keepdims=True) / LEVELS
    return np.asarray(np.rint(kernel / scale) * scale, np.float32)


@given(st.integers(0, 2**32 - 1))
def test_the_output_moves_less_than_by_plain_rounding(seed: int) -> None:
    kernel = np.random.default_rng(seed).standard_normal((16, 48)).astype(np.float32)
    rounded = round_kernel(kernel, MOMENTS)
    assert np.abs(rounded.levels).max() <= LEVELS
    assert moved(kernel, rounded.values) < 0.5 * moved(kernel, plain(kernel))


def test_what_has_levels_already_stays() -> None:
    levels = GENERATOR.integers(-LEVELS, LEVELS + 1, (16, 48))
    levels[:, 0] = LEVELS
    kernel = (0.03 * levels).astype(np.float32)
    np.testing.assert_allclose(round_kernel(kernel, MOMENTS).values, kernel, atol=1e-6)


def test_inputs_that_no_picture_showed_and_rows_of_zeros_are_no_trouble() -> None:
    kernel = np.eye(4, 6, dtype=np.float32)
    kernel[3] = 0
    np.testing.assert_allclose(round_kernel(kernel, np.zeros((6, 6))).values, kernel, atol=1e-6)
