"""How steadily a device has answered lately."""

from collections import deque
from dataclasses import dataclass, field

# Falls that are longer ago are forgotten.
REMEMBERED_SECONDS = 600.0
MOST_FALLS = 64


@dataclass(slots=True)
class History:
    """When a device was lost and found, on the monotonic clock; `began` is from when on it was expected."""

    began: float
    connected: bool = False
    since: float | None = None  # None: it has never answered
    falls: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_FALLS))

    def note(self, connected: bool, now: float) -> None:
        """Take word of whether there is a link."""
        if connected == self.connected:
            return
        if not connected:
            self.falls.append(now)
        self.connected, self.since = connected, now

    def steady(self, now: float) -> float:
        """For how many seconds it has answered without a break."""
        return now - self.since if self.connected and self.since is not None else 0.0

    def away(self, now: float, patience: float) -> float:
        """For how many seconds it has not answered; one that never did is expected for `patience` first."""
        if self.connected:
            return 0.0
        return max(0.0, now - (self.began + patience if self.since is None else self.since))

    def lately(self, now: float) -> int:
        """How often it was lost lately."""
        return sum(now - fall < REMEMBERED_SECONDS for fall in self.falls)
