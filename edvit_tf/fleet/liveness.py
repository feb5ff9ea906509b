"""Where a device stands, by what its link shows: a state, its reason, and since when.

Pure: a `Standing` and something that happened give the next one. zeroconf has no say in it.

- up: it answers.
- slow: it answers, but late: heartbeats or pictures take long. After a picture that came too late it rests
  for a while that doubles each time, then it is asked again.
- suspect: a heartbeat or a picture was not answered and no heartbeat since; it is not asked.
- down: too many heartbeats in a row were not answered, or the connection broke.
- refused: it answers, and refuses or is refused.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

from edvit_tf.errors import DeviceError, EdvitError, TrustError
from edvit_tf.fleet.hello import State

NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Limits:
    """When is slow, and when is down; seconds, unless the name says otherwise."""

    misses: int = 2  # heartbeats in a row: so many that are not answered are one too many
    slow_beat: float = 0.5
    slow_pictures: int = 3  # in a row
    slow_picture: float = 0.05  # faster than this is never slow, whatever was measured
    slower: float = 10.0  # times as slow as where it proved itself
    first_rest: float = 0.5
    longest_rest: float = 30.0


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Standing:
    """A state with its reason (empty only when up or connecting) and since when, on the monotonic clock.

    The rest is what the next state depends on: heartbeats missed in a row, pictures that came too late in a
    row, pictures in a row that took many times as long as measured, and until when it is not asked.
    """

    state: State
    reason: str
    since: float
    misses: int = 0
    lates: int = 0
    slows: int = 0
    rests_until: float = NEVER
    limits: Limits = DEFAULT_LIMITS

    @property
    def connected(self) -> bool:
        """Whether there is a link, good or bad."""
        return self.state in (State.UP, State.SLOW, State.SUSPECT)

    def asks(self, now: float) -> bool:
        """Whether it should be sent a picture."""
        return self.state in (State.UP, State.SLOW) and now >= self.rests_until

    def reached(self, now: float) -> Self:
        """It said hello and holds what it should."""
        return self._to(State.UP, "", now, misses=0, slows=0, rests_until=NEVER)

    def beat(self, seconds: float, now: float) -> Self:
        """It answered a heartbeat, within so many seconds."""
        if not self.connected:
            return self
        calm = replace(self, misses=0)
        if self.lates:
            return calm._to(State.SLOW, f"{_pictures(self.lates)} came too late", now)
        if self.slows >= self.limits.slow_pictures:
            return calm._to(State.SLOW, self.reason, now)
        # What has become slow is up again when it is clearly faster.
        limit = self.limits.slow_beat / 2 if self.state is State.SLOW else self.limits.slow_beat
        if seconds > limit:
            return calm._to(State.SLOW, f"a heartbeat took {seconds:.2f} s", now)
        return calm._to(State.UP, "", now)

    def missed(self, error: EdvitError, now: float) -> Self:
        """It did not answer a heartbeat in time."""
        if not self.connected:
            return self
        misses = self.misses + 1
        state = State.DOWN if misses >= self.limits.misses else State.SUSPECT
        return self._to(state, error.message, now, misses=misses)

    def answered(self, seconds: float, measured: float, now: float) -> Self:
        """It answered a picture.

        `seconds` is what its interpreter took, `measured` what it took where it proved itself; 0: unknown.
        """
        if not self.connected:
            return self
        usual = max(self.limits.slower * measured, self.limits.slow_picture)
        slows = self.slows + 1 if measured and seconds > usual else 0
        if (self.lates, self.slows, self.rests_until) == (0, slows, NEVER):
            return self
        calm = replace(self, lates=0, slows=slows, rests_until=NEVER)
        if slows >= self.limits.slow_pictures:
            reason = (
                f"a picture takes it {1000 * seconds:.0f} ms, and {1000 * measured:.1f} when it proved itself"
            )
            return calm._to(State.SLOW, reason, now)
        if self.state is State.SLOW and (self.lates or self.slows):
            return calm._to(State.UP, "", now)
        return calm

    def late(self, error: EdvitError, now: float) -> Self:
        """It did not answer a picture in time, or was too busy: it rests, and a heartbeat tells more."""
        if not self.connected:
            return self
        rest = min(self.limits.longest_rest, self.limits.first_rest * 2 ** min(self.lates, 30))
        return self._to(State.SUSPECT, error.message, now, lates=self.lates + 1, rests_until=now + rest)

    def failed(self, error: EdvitError, now: float) -> Self:
        """The connection broke or was not made, or one side refused the other."""
        return self._to(state_after(error), error.message, now, misses=0)

    def _to(self, state: State, reason: str, now: float, **changes: Any) -> Self:
        since = self.since if state is self.state else now
        return replace(self, state=state, reason=reason, since=since, **changes)


def state_after(error: EdvitError) -> State:
    """Which state a failure leads to."""
    return State.REFUSED if isinstance(error, DeviceError | TrustError) else State.DOWN


def _pictures(number: int) -> str:
    return "a picture" if number == 1 else f"{number} pictures in a row"
