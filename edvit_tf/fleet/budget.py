"""How much may be asked twice: a fleet in trouble must not be asked more than one that is well."""

from dataclasses import dataclass

SHARE = 0.1
MOST = 10.0


@dataclass(slots=True)
class Budget:
    """A tenth of what was asked may be asked again, and at most ten at a time: a token bucket."""

    left: float = MOST

    def earn(self, asked: int) -> None:
        """So many were asked."""
        self.left = min(MOST, self.left + SHARE * asked)

    def allows(self) -> bool:
        """Whether one may be asked again now."""
        return self.left >= 1.0

    def take(self) -> bool:
        """Ask one again, if that is allowed."""
        if not self.allows():
            return False
        self.left -= 1.0
        return True
