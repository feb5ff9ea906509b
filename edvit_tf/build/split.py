"""Classes → groups, one for each sub-model (ED-ViT, arXiv 2410.11650).

At random as the paper does, by likeness, by count, or by hand.

A group is a sorted tuple of class numbers; the groups of a split hold every class once.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edvit_tf.errors import UsageError

Groups = tuple[tuple[int, ...], ...]


def random_balanced(classes: int, groups: int, *, seed: int) -> Groups:
    """Split class numbers 0 … classes - 1 at random into groups whose sizes differ by at most one (ED-ViT).

    Larger groups come first.

    Raises:
        UsageError: there are more groups than classes, or none.
    """
    _require_possible(classes, groups)
    order = np.random.default_rng(seed).permutation(classes)
    return tuple(tuple(sorted(int(index) for index in part)) for part in np.array_split(order, groups))


def likeness(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """How alike a teacher finds each two classes: symmetric f64 [classes, classes], the diagonal zero.

    It is the mean probability that pictures of the one class are given for the other, both ways.

    Args:
        probabilities: f32 [n, classes], the teacher's for pictures of every class.
        labels: int64 [n], the pictures' true classes.
    """
    classes = probabilities.shape[1]
    confusion = np.stack([probabilities[labels == index].mean(axis=0) for index in range(classes)])
    alike: NDArray[np.float64] = (confusion + confusion.T).astype(np.float64) / 2
    np.fill_diagonal(alike, 0.0)
    return alike


def by_likeness(alike: NDArray[np.float64], groups: int, *, together: bool, seed: int) -> Groups:
    """Balanced groups with the likeness inside them as high as swapping finds, or as low if not `together`.

    From a random balanced split, the two classes whose exchange gains most are exchanged until none gains
    (the pairwise exchange of Kernighan and Lin, 1970). The best of several starts is kept.

    Args:
        alike: symmetric f64 [classes, classes], see `likeness`.
        groups: how many.
        together: whether like classes share a group or are kept apart.
        seed: of the random starts.

    Raises:
        UsageError: there are more groups than classes, or none.
    """
    classes = len(alike)
    _require_possible(classes, groups)
    wanted = alike if together else -alike
    starts = np.random.SeedSequence(seed).generate_state(_STARTS)
    found = [_exchange(random_balanced(classes, groups, seed=int(start)), wanted) for start in starts]
    best = max(found, key=lambda split: _inside(split, wanted))
    return tuple(sorted(best, key=lambda group: (-len(group), group)))


def by_count(counts: Sequence[int], groups: int) -> Groups:
    """Groups that hold about as many pictures each, for classes of very different counts.

    Classes are taken by falling count, each to the group with the fewest pictures so far (the longest first
    rule of Graham, 1969). Groups come by falling number of pictures, and none is empty.

    Args:
        counts: pictures of each class.
        groups: how many.

    Raises:
        UsageError: there are more groups than classes, or none.
    """
    _require_possible(len(counts), groups)
    members: list[list[int]] = [[] for _ in range(groups)]
    pictures = [0] * groups
    for index in sorted(range(len(counts)), key=lambda index: (-counts[index], index)):
        # An empty group comes before any other, so that classes without pictures fill it too.
        smallest = min(range(groups), key=lambda group: (bool(members[group]), pictures[group], group))
        members[smallest].append(index)
        pictures[smallest] += counts[index]
    order = sorted(range(groups), key=lambda group: (-pictures[group], members[group]))
    return tuple(tuple(sorted(members[group])) for group in order)


def by_hand(text: str, classes: Sequence[str]) -> Groups:
    """The groups that a user wrote: labels (or their numbers) with commas between, groups with semicolons.

    >>> by_hand("cat, dog; 2", ("cat", "dog", "ship"))
    ((0, 1), (2,))

    Raises:
        UsageError: an unknown class, one that comes twice or nowhere, or an empty group.
    """
    numbers = {label: index for index, label in enumerate(classes)}
    numbers = {str(index): index for index in range(len(classes))} | numbers  # a label wins over a number
    split = [[word.strip() for word in group.split(",")] for group in text.split(";")]
    words = [word for group in split for word in group]
    unknown = [word for word in words if word not in numbers]
    if unknown:
        raise UsageError(
            f"--groups names {unknown[0]!r}, which is no class of the data ({', '.join(classes)}): write "
            "labels with commas between them and a semicolon between groups"
        )
    named = Counter(numbers[word] for word in words)
    wrong = next((index for index in range(len(classes)) if named[index] != 1), None)
    if wrong is not None:
        times = f"{named[wrong]} times" if named[wrong] else "nowhere"
        raise UsageError(f"--groups must name every class once: {classes[wrong]!r} is named {times}")
    return tuple(tuple(sorted(numbers[word] for word in group)) for group in split)


_STARTS = 16


def _exchange(split: Groups, wanted: NDArray[np.float64]) -> Groups:
    owner = np.empty(len(wanted), np.int64)
    for number, group in enumerate(split):
        owner[list(group)] = number
    while True:
        gain, first, second = max(_gains(owner, wanted), default=(0.0, 0, 0))
        if gain <= _LEAST_GAIN:
            return tuple(tuple(np.flatnonzero(owner == number).tolist()) for number in range(len(split)))
        owner[[first, second]] = owner[[second, first]]


_LEAST_GAIN = 1e-12  # rounding must not make an exchange pay both ways


def _gains(owner: NDArray[np.int64], wanted: NDArray[np.float64]) -> list[tuple[float, int, int]]:
    """For each two classes of different groups, by how much their exchange raises what is wanted inside."""
    membership = np.equal.outer(owner, np.arange(owner.max() + 1))
    towards = wanted @ membership  # [class, group]: likeness of a class to a group's members
    return [
        (
            float(
                towards[a, owner[b]] + towards[b, owner[a]] - towards[a, owner[a]] - towards[b, owner[b]]
                - 2 * wanted[a, b]
            ),
            a,
            b,
        )
        for a in range(len(owner))
        for b in range(a + 1, len(owner))
        if owner[a] != owner[b]
    ]  # fmt: skip


def _inside(split: Groups, wanted: NDArray[np.float64]) -> float:
    return sum(float(wanted[np.ix_(group, group)].sum()) for group in split)


def _require_possible(classes: int, groups: int) -> None:
    if not 1 <= groups <= classes:
        raise UsageError(
            f"{classes} classes cannot be split over {groups} devices: each needs at least one class, "
            f"so ask for 1 to {classes}."
        )
