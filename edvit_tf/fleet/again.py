"""Asking again within one answer: when a device is slower than usual, or its connection broke.

Of each device once, never after the deadline, and over all answers no more than the budget allows.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum

from edvit_tf.fleet.budget import Budget
from edvit_tf.fleet.dispatch import Route

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
# Who else holds all that a route asks for, and the same device when it is soon back; empty for nobody.
Others = Callable[[Route], list[Route]]
Back = Callable[[Route], Awaitable[list[Route]]]


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


class Insisting:
    """Says for an aggregator whom to ask again and when (`edvit_tf.fleet.dispatch.Elsewhere`).

    `on_again` is called for each that is asked again, and for each that the budget does not allow.
    """

    def __init__(self, others: Others, back: Back, on_again: OnAgain) -> None:
        self._others = others
        self._back = back
        self._on_again = on_again
        self._budget = Budget()
        self._usual = Usual()

    def asked(self, number: int) -> None:
        """So many were asked for the first time."""
        self._budget.earn(number)

    def answered(self, device: str, seconds: float) -> None:
        """A device has answered within so many seconds."""
        self._usual.note(device, seconds)

    def delay(self, route: Route, left: float) -> float | None:
        """After how many seconds of `left` somebody else is asked, too; None when nobody else can be."""
        return hedge_delay(self._usual.of(route.device), left) if self._others(route) else None

    def hedge(self, route: Route) -> list[Route]:
        """Whom to ask beside a device that is slow: those that hold the same."""
        return self._allowed(self._others(route), Again.HEDGE)

    async def retry(self, route: Route) -> list[Route]:
        """Whom to ask when the connection of a route broke: others, or the same device again."""
        if others := self._others(route):
            return self._allowed(others, Again.RETRY)
        if not self._budget.allows():
            return self._allowed([route], Again.RETRY)
        return self._allowed(await self._back(route), Again.RETRY)

    def _allowed(self, routes: Sequence[Route], why: Again) -> list[Route]:
        """Those of the routes that the budget allows."""
        allowed = []
        for route in routes:
            if self._budget.take():
                allowed.append(route)
                self._on_again(why)
            else:
                self._on_again(Again.REFUSED)
        return allowed
