"""How long work says how far it is: the one thing that build calls and the command line draws."""

from typing import Protocol


class Progress(Protocol):
    """Whoever wants to know: a bar on a terminal, a log, nobody."""

    def update(self, stage: str, done: float, message: str) -> None:
        """Tell that `stage` is `done` (0 to 1), with a few words for a person."""
        ...


class Silent:
    """Nobody wants to know."""

    def update(self, stage: str, done: float, message: str) -> None:
        """Tell nobody."""
