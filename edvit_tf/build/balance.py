"""Classes of unequal numbers: a rare one counts as much as a frequent one. Pure numbers, no TensorFlow.

Pictures are drawn class by class, and the teacher is freed of what it learned from the numbers alone
(logits less the logarithm of the prior: Menon et al., arXiv 2007.07314). Neither changes equal classes.
"""

import numpy as np
from numpy.typing import NDArray


def draw(
    rows: NDArray[np.int64], labels: NDArray[np.int64], total: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Draw `total` of the rows, of each class as many, one more or less.

    A class that has too few is taken whole as often as it goes, and some of it once more.

    Args:
        rows: int64 [m], at least one.
        labels: int64 [n], classes of all rows.
        total: how many to draw.
        generator: decides which.
    """
    classes = np.unique(labels[rows])
    quotas = np.full(len(classes), total // len(classes))
    quotas[generator.permutation(len(classes))[: total % len(classes)]] += 1
    parts = []
    for label, quota in zip(classes, quotas, strict=True):
        members = rows[labels[rows] == label]
        whole, rest = divmod(int(quota), len(members))
        parts += [np.tile(members, whole), generator.choice(members, rest, replace=False)]
    return np.concatenate(parts)


def without_prior(logits: NDArray[np.float32], counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """What a model would say if it had seen as much of every class.

    Args:
        logits: f32 [..., classes] of a model that was trained on unequal classes.
        counts: int64 [classes], how much it saw of each.
    """
    prior = np.maximum(counts, 1) / counts.mean()
    return np.asarray(logits - np.log(prior), np.float32)
