"""How fast a device's link takes bytes, by what its answers and heartbeats took.

Pure: a `Pace` and something that was measured give the next one. On a link that ten devices share, each of
them sees a tenth: that is what an answer waits for.
"""

from dataclasses import dataclass
from typing import Self

WINDOW = 3
# About a minute: on a link in use most heartbeats wait behind pictures, and hardly ever all of them.
TRIPS = 60
# A picture that was sent raw so many coded ones ago says nothing of now.
STALE = 64


@dataclass(frozen=True, slots=True)
class Sample:
    """A request of so many bytes, and the seconds that it was under way beside the work on it."""

    size: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Pace:
    """The last measurements: round trips of heartbeats, and pictures that went raw and coded.

    `decoding` is what the device's codec took for the last coded one, in seconds, 0 when unknown.
    """

    trips: tuple[float, ...] = ()
    raw: tuple[Sample, ...] = ()
    coded: tuple[Sample, ...] = ()
    since_raw: int = 0
    decoding: float = 0.0

    def beat(self, seconds: float) -> Self:
        """A heartbeat was answered within so many seconds."""
        trips = (*self.trips, seconds)[-TRIPS:]
        return type(self)(trips, self.raw, self.coded, self.since_raw, self.decoding)

    def sent_raw(self, size: int, seconds: float) -> Self:
        """A raw picture was answered, or not in this time: then it is that slow at least."""
        raw = (*self.raw, Sample(size, max(0.0, seconds)))[-WINDOW:]
        return type(self)(self.trips, raw, self.coded, 0, self.decoding)

    def sent_coded(self, size: int, seconds: float, decoding: float) -> Self:
        """The same of one that the device has decoded; what that took is no part of `seconds`."""
        coded = (*self.coded, Sample(size, max(0.0, seconds)))[-WINDOW:]
        since = self.since_raw + 1
        raw = self.raw if since < STALE else ()
        return type(self)(self.trips, raw, coded, since, decoding or self.decoding)

    @property
    def byte_seconds(self) -> float:
        """Seconds that a byte more takes, 0 before a heartbeat and a picture were measured.

        Between raw and coded pictures it is what they differ by: what waits for the processor is in both.
        With one kind alone it is all that a heartbeat does not take, which is too much on a busy machine.
        """
        if self.raw and self.coded:
            large, small = _middle(self.raw), _middle(self.coded)
            if large.size > 1.2 * small.size:
                return max(0.0, (large.seconds - small.seconds) / (large.size - small.size))
        some = _middle(self.raw or self.coded)
        if not self.trips or not some.size:
            return 0.0
        return max(0.0, some.seconds - min(self.trips)) / some.size


def _middle(samples: tuple[Sample, ...]) -> Sample:
    if not samples:
        return Sample(0, 0.0)
    half = len(samples) // 2
    return Sample(
        sorted([sample.size for sample in samples])[half],
        sorted([sample.seconds for sample in samples])[half],
    )
