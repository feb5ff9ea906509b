"""Classes → groups, one for each sub-model."""

import numpy as np

from edvit_tf.errors import UsageError


def random_balanced(classes: int, groups: int, *, seed: int) -> tuple[tuple[int, ...], ...]:
    """Split class numbers 0 … classes - 1 at random into groups whose sizes differ by at most one (ED-ViT).

    Larger groups come first, and each group is sorted.

    Raises:
        UsageError: there are more groups than classes, or none.
    """
    if not 1 <= groups <= classes:
        raise UsageError(
            f"{classes} classes cannot be split over {groups} devices: each needs at least one class, "
            f"so ask for 1 to {classes}."
        )
    order = np.random.default_rng(seed).permutation(classes)
    return tuple(tuple(sorted(int(index) for index in part)) for part in np.array_split(order, groups))
