"""What the classes of a data set are to one group: its own, and one extra class for all the rest.

Pure functions of numbers, no TensorFlow. "other" is always the last logit (EC-SNN; ED-ViT, arXiv 2410.11650).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.balance import draw

OTHER = "other"

Choose = Callable[[np.random.Generator], NDArray[np.int64]]


def logits_of_group(classes: int, group: tuple[int, ...]) -> int:
    """Logits of a sub-model: one for each class of its group and one for "other", if there are others."""
    return len(group) + (len(group) < classes)


def relabel(labels: NDArray[np.int64], group: tuple[int, ...]) -> NDArray[np.int64]:
    """Labels int64 [n] of the data set to positions in the group; `len(group)` stands for "other"."""
    position = np.full(max(int(labels.max()), *group) + 1, len(group))
    position[list(group)] = np.arange(len(group))
    return position[labels]


def regroup(logits: NDArray[np.float32], group: tuple[int, ...]) -> NDArray[np.float32]:
    """Logits f32 [..., classes] to [..., group (+ other)]: "other" has the others' probabilities added up."""
    others = np.setdiff1d(np.arange(logits.shape[-1]), group)
    own = logits[..., list(group)]
    if not len(others):
        return own
    rest = np.logaddexp.reduce(logits[..., others], axis=-1, keepdims=True)
    return np.concatenate([own, rest], axis=-1)


def chooser(
    labels: NDArray[np.int64],
    other: int,
    *,
    others: float = 1.0,
    limit: int | None = None,
    balanced_by: NDArray[np.int64] | None = None,
) -> Choose:
    """The rows of an epoch: the whole group, and some of the others, drawn anew each time.

    Args:
        labels: int64 [n], positions in the group, see `relabel`.
        other: the position that stands for "other".
        others: how many of those, in the group's pictures a class: 1 is as in the paper's ancestors.
        limit: draw only so many of these rows.
        balanced_by: int64 [n], the data set's classes: as many rows as without, but as many of each class.
    """
    own, rest = np.flatnonzero(labels != other), np.flatnonzero(labels == other)
    drawn = min(len(rest), max(1, round(others * len(own) / other)))

    def choose(generator: np.random.Generator) -> NDArray[np.int64]:
        if balanced_by is not None:
            mine, strangers = (
                draw(rows, balanced_by, count, generator) if count else rows[:0]
                for rows, count in ((own, len(own)), (rest, drawn))
            )
        else:
            mine, strangers = own, generator.choice(rest, drawn, replace=False) if drawn else rest
        rows = np.concatenate([mine, strangers])
        return rows if limit is None else generator.choice(rows, min(limit, len(rows)), replace=False)

    return choose


def rows_of_epoch(labels: NDArray[np.int64], group: tuple[int, ...], others: float) -> int:
    """Training pictures of an epoch of the group's sub-model."""
    choose = chooser(relabel(labels, group), len(group), others=others)
    return len(choose(np.random.default_rng(0)))
