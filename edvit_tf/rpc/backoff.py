"""How long to wait before a connection is tried again: ever longer, and not all at the same moment."""

from random import Random


def backoff(
    failures: int, random: Random, *, first: float, longest: float, growth: float = 1.6, jitter: float = 0.2
) -> float:
    """Seconds after so many failures in a row: `first`, grown each time up to `longest`, ± `jitter` of it."""
    grown = min(longest, first * growth ** min(max(failures - 1, 0), 50))
    return grown * random.uniform(1 - jitter, 1 + jitter)
