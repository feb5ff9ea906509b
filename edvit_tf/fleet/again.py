"""Asking again within one answer: when a device is slower than usual, or its connection broke.

Of each device once, never after the deadline, and over all answers no more than the budget allows.
"""

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum

# So many answers of a device are remembered; of fewer than the second nothing is concluded.
KEPT = 64
FEWEST = 8
# A device that has taken longer than in so many of its answers is slow this time.
QUANTILE = 0.95
SHORTEST_SECONDS = 0.01
# Whoever is asked elsewhere needs time, too: at least the other half.
MOST_OF_THE_TIME = 0.5
# Of a device that nothing is known of.
UNKNOWN_SHARE = 0.25


class Again(Enum):
    """What became of a wish to ask again."""

    HEDGE = "hedge"  # elsewhere, because the device is slow
    RETRY = "retry"  # elsewhere or there again, because the connection broke
    REFUSED = "refused"  # the budget did not allow it


OnAgain = Callable[[Again], None]


def hedge_delay(took: Sequence[float], left: float) -> float:
    """After how many seconds without an answer somebody else is asked.

    Args:
        took: seconds of the device's last answers.
        left: seconds until the deadline.
    """
    latest = MOST_OF_THE_TIME * left
    if len(took) < FEWEST:
        return UNKNOWN_SHARE * left
    usual = sorted(took)[int(QUANTILE * (len(took) - 1))]
    return min(max(usual, SHORTEST_SECONDS), latest)


class Usual:
    """How long each device (by id) has taken lately, in seconds."""

    def __init__(self) -> None:
        self._took: dict[str, deque[float]] = {}

    def note(self, device: str, seconds: float) -> None:
        """A device has answered."""
        self._took.setdefault(device, deque(maxlen=KEPT)).append(seconds)

    def of(self, device: str) -> Sequence[float]:
        """The last answers of a device."""
        return self._took.get(device, ())
