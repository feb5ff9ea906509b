"""What an export tried before it chose its formats, as the manifest's `tried` says it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measured:
    """What one device said of one candidate.

    Attributes:
        device: the first digits of its id.
        name: what it is called.
        runtime: its interpreter and version.
        ms: the fastest of its medians of one picture; None when it did not run the candidate.
        reason: why it did not; empty when it did.
    """

    device: str
    name: str
    runtime: str
    ms: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate of `--format auto`: what was found, and why it was not kept (empty when it was).

    Attributes:
        format: its name.
        bytes, memory_bytes: the largest sub-model's.
        ms: the slowest sub-model's fastest run here, or, where devices measured the largest sub-model, what
            the slowest of them takes; None when none ran it.
        accuracy: the fused one on validation.
        reason: why it was not kept.
        devices: what each said that measured it; empty when this machine did.
    """

    format: str
    bytes: int
    memory_bytes: int
    ms: float | None
    accuracy: float
    reason: str = ""
    devices: tuple[Measured, ...] = ()

    @property
    def times(self) -> dict[str, float]:
        """Milliseconds by device, or of this machine alone, by an empty name."""
        if self.devices:
            return {one.device: one.ms for one in self.devices if one.ms is not None}
        return {} if self.ms is None else {"": self.ms}
