"""Where a device stands, event by event."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edvit_tf.errors import DeadlineError, DeviceError, EdvitError, LinkError, ProtocolError, TrustError
from edvit_tf.fleet.hello import State
from edvit_tf.fleet.liveness import DEFAULT_LIMITS, Standing

SILENT = DeadlineError("it said nothing")
NEW = Standing(State.CONNECTING, "", 0.0)
UP = NEW.reached(1.0)


def test_it_is_up_when_it_was_reached_and_answers() -> None:
    assert (UP.state, UP.reason, UP.since) == (State.UP, "", 1.0)
    later = UP.beat(0.01, 2.0).answered(0.001, 0.001, 3.0).beat(0.01, 4.0)
    assert (later.state, later.reason, later.since) == (State.UP, "", 1.0)
    assert later.asks(4.0)


def test_one_unanswered_heartbeat_is_a_suspicion_and_the_second_the_end() -> None:
    suspect = UP.missed(SILENT, 2.0)
    assert (suspect.state, suspect.reason, suspect.since) == (State.SUSPECT, "it said nothing", 2.0)
    assert suspect.connected
    assert not suspect.asks(2.0)
    assert suspect.beat(0.01, 3.0).state is State.UP
    down = suspect.missed(SILENT, 3.0)
    assert (down.state, down.since, down.connected) == (State.DOWN, 3.0, False)
    assert suspect.beat(0.01, 3.0).missed(SILENT, 4.0).state is State.SUSPECT, "in a row"


def test_a_late_heartbeat_makes_it_slow_until_it_is_clearly_faster() -> None:
    slow = UP.beat(0.6, 2.0)
    assert (slow.state, slow.reason) == (State.SLOW, "a heartbeat took 0.60 s")
    assert slow.asks(2.0), "slow is better than nothing"
    assert slow.beat(0.4, 3.0).state is State.SLOW
    assert slow.beat(0.2, 3.0).state is State.UP


def test_late_pictures_make_it_rest_for_longer_each_time() -> None:
    standing, rests = UP, []
    for now in range(10, 200, 40):
        late = standing.late(SILENT, now)
        assert late.state is State.SUSPECT
        rests.append(late.rests_until - now)
        standing = late.beat(0.01, now + 1)
        assert standing.state is State.SLOW
        assert not standing.asks(late.rests_until - 0.01)
        assert standing.asks(late.rests_until)
    assert rests == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert standing.reason == "5 pictures in a row came too late"
    assert standing.answered(0.01, 0.01, 300.0).state is State.UP


def test_ten_times_slower_than_it_said_is_slow() -> None:
    once = UP.answered(0.3, 0.02, 2.0)
    assert once.state is State.UP
    slow = once.answered(0.3, 0.02, 3.0).answered(0.3, 0.02, 4.0)
    assert slow.state is State.SLOW
    assert slow.reason == "a picture takes it 300 ms, and 20.0 when it proved itself"
    assert slow.beat(0.01, 5.0).state is State.SLOW, "a heartbeat does not clear that"
    assert slow.answered(0.02, 0.02, 6.0).state is State.UP


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (LinkError("gone"), State.DOWN),
        (SILENT, State.DOWN),
        (DeviceError("no"), State.REFUSED),
        (ProtocolError("old"), State.REFUSED),
        (TrustError("somebody else"), State.REFUSED),
    ],
)
def test_a_failure_says_which(error: EdvitError, state: State) -> None:
    assert (UP.failed(error, 2.0).state, UP.failed(error, 2.0).reason) == (state, error.message)


EVENTS = st.lists(
    st.tuples(
        st.floats(0.0, 100.0),  # seconds since the one before
        st.one_of(
            st.just(("reached",)),
            st.tuples(st.just("beat"), st.floats(0.0, 2.0)),
            st.just(("missed", SILENT)),
            st.tuples(st.just("answered"), st.floats(0.0, 2.0), st.floats(0.0, 0.1)),
            st.just(("late", SILENT)),
            st.just(("failed", LinkError("gone"))),
            st.just(("failed", DeviceError("no"))),
        ),
    ),
    max_size=40,
)


@given(EVENTS)
def test_whatever_happens(events: list[tuple[float, tuple[str, *tuple[object, ...]]]]) -> None:
    standing, now = NEW, 0.0
    for pause, (what, *arguments) in events:
        now += pause
        before = standing
        standing = getattr(before, what)(*arguments, now)
        assert standing.since <= now
        assert (standing.since == before.since) or standing.state is not before.state
        assert bool(standing.reason) == (standing.state not in (State.UP, State.CONNECTING))
        assert standing.asks(now) <= standing.connected
        assert standing.rests_until <= now + DEFAULT_LIMITS.longest_rest
        if not before.connected and what not in ("reached", "failed"):
            assert standing == before, "nothing but a connection brings it back"
        if what == "missed" and before.connected:
            assert (standing.state is State.DOWN) == (standing.misses >= DEFAULT_LIMITS.misses)
        if standing.connected:
            healed = replace(standing, lates=0, slows=0).beat(0.0, now + 1)
            assert healed.state is State.UP
