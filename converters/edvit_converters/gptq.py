"""Rounding weights to few levels so that a product's output moves least (GPTQ, arXiv 2210.17323).

The quantiser's own GPTQ takes a row of the whole inverse where the method takes one of its Cholesky factor,
and does not clip; on the shipped teacher this one leaves half of its error.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

LEVELS = 7  # of an int4 weight, either way of zero
_DAMPING = 0.01  # of the mean diagonal, so that what the pictures did not show stays bounded
_CLIPPED = np.linspace(0.5, 1.0, 21)  # shares of a row's largest weight that are tried as its largest level


@dataclass(frozen=True, slots=True)
class Rounded:
    """A kernel [outputs, inputs] in levels from -7 to 7, int8, and the f32 `scale` [outputs] of a level."""

    levels: NDArray[np.int8]
    scale: Array

    @property
    def values(self) -> Array:
        """The numbers that the levels stand for, f32 [outputs, inputs]."""
        return self.levels * self.scale[:, np.newaxis]


def round_kernel(kernel: Array, moments: NDArray[np.float64]) -> Rounded:
    """Round a kernel for the inputs that it has.

    Args:
        kernel: f32 [outputs, inputs].
        moments: Σ x·xᵀ over rows x that the product reads, [inputs, inputs].

    Returns:
        Levels that keep Σ |(W - Ŵ)·x|² small, each row with the scale that suits it.
    """
    damped = moments + _DAMPING * max(float(np.trace(moments)) / len(moments), 1e-12) * np.eye(len(moments))
    # What counts most is rounded first, while there is most left to make up for it.
    order = np.argsort(-np.diag(damped), kind="stable")
    damped = damped[np.ix_(order, order)]
    left = kernel[:, order].astype(np.float64)
    scale = _scales(left, damped)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    levels = np.zeros(left.shape, np.int8)
    for column in range(left.shape[1]):
        levels[:, column] = np.clip(np.rint(left[:, column] / scale), -LEVELS, LEVELS)
        error = (left[:, column] - levels[:, column] * scale) / upper[column, column]
        left[:, column:] -= np.outer(error, upper[column, column:])
    back = np.empty_like(levels)
    back[:, order] = levels
    return Rounded(back, scale.astype(np.float32))


def _scales(kernel: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each row the scale with which plain rounding moves the output least."""
    largest = np.abs(kernel).max(axis=1) / LEVELS
    # A unit that was pruned away: interpreters refuse a scale of 0, and next to it.
    largest[largest * _CLIPPED[0] < np.finfo(np.float32).tiny] = 1.0
    best = np.array(largest)
    least = np.full(len(kernel), np.inf)
    for share in _CLIPPED:
        scale = largest * share
        levels = np.clip(np.rint(kernel / scale[:, np.newaxis]), -LEVELS, LEVELS)
        error = kernel - levels * scale[:, np.newaxis]
        moved = np.einsum("oi,oi->o", error @ moments, error)
        np.copyto(best, scale, where=moved < least)
        least = np.minimum(moved, least)
    return best
