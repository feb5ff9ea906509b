"""How much may be asked twice: a fleet in trouble must not be asked more than one that is well."""

from dataclasses import dataclass

SHARE = 0.1
MOST = 10.0


@dataclass(slots=True)
class Budget:
    """A tenth of what was asked may be asked again, and at most ten at a time."""

    left: float = MOST

    def earn(self, asked: int) -> None:
        """So many were asked."""
        self.left = min(MOST, self.left + SHARE * asked)

    def take(self) -> bool:
        """Ask one again, if that is allowed."""
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True
