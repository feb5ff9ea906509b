"""Which pictures are for what: held out class by class from the seed, and thinned out to a long tail."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.data.dataset import Dataset, Split
from edvit_tf.errors import UsageError

HELD_OUT = 0.1


def hold_out(
    labels: Sequence[int] | NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide rows into those kept and a tenth held out, class by class; both sorted.

    A class of two pictures or more keeps at least one and holds out at least one.
    """
    generator = np.random.default_rng(seed)
    labels = np.asarray(labels)
    held = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = min(max(1, round(len(rows) * HELD_OUT)), len(rows) - 1)
        held.append(generator.permutation(rows)[:count])
    out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), out), out


def long_tail(dataset: Dataset, ratio: float, seed: int) -> Dataset:
    """Leave classes fewer and fewer training and validation pictures, exponentially.

    The first class keeps as many as the smallest class has, the last `ratio` times fewer: class c of C keeps
    n · ratio^(−c / (C − 1)) (Cui et al., arXiv 1901.05555). At least one of each class stays.

    Args:
        dataset: with whatever counts.
        ratio: of the first class's count to the last's, 1 or more.
        seed: decides which pictures stay.

    Raises:
        UsageError: a ratio below 1.
    """
    if not 1 <= ratio < float("inf"):
        raise UsageError(f"long-tail={ratio:g}: the ratio of the largest class to the smallest is 1 or more")
    classes = len(dataset.classes)
    shares = ratio ** (-np.arange(classes) / (classes - 1))
    return replace(
        dataset,
        train=_thin(dataset.train, shares, np.random.default_rng([seed, 0])),
        validation=_thin(dataset.validation, shares, np.random.default_rng([seed, 1])),
    )


def _thin(split: Split, shares: NDArray[np.float64], generator: np.random.Generator) -> Split:
    most = int(split.counts(len(shares)).min())
    kept = [
        generator.permutation(np.flatnonzero(split.labels == label))[: max(1, round(most * share))]
        for label, share in enumerate(shares)
    ]
    return split.take(np.sort(np.concatenate(kept)))
