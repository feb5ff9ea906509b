"""How fast a link is, by what crossed it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edvit_tf.fleet.pace import STALE, Pace

RAW, CODED = 150_000, 25_000


def test_nothing_is_known_of_a_new_link() -> None:
    assert Pace().byte_seconds == 0
    assert Pace().beat(0.3).byte_seconds == 0
    assert Pace().sent_raw(RAW, 0.4).byte_seconds == 0, "all of it may be waiting"


def test_what_a_heartbeat_takes_is_not_the_bytes() -> None:
    pace = Pace().beat(0.5).beat(0.1).beat(0.3).sent_raw(RAW, 0.4)
    assert pace.byte_seconds == pytest.approx(0.3 / RAW)


def test_one_slow_answer_is_not_a_slow_link() -> None:
    pace = Pace().beat(0.0)
    for seconds in (0.01, 0.8, 0.01):
        pace = pace.sent_raw(RAW, seconds)
    assert pace.byte_seconds == pytest.approx(0.01 / RAW)


@given(
    byte_seconds=st.floats(0, 1e-5),
    waiting=st.floats(0, 0.5),
    trip=st.floats(0, 0.5),
    decoding=st.floats(0, 0.1),
)
def test_raw_and_coded_together_tell_bytes_from_waiting(
    byte_seconds: float, waiting: float, trip: float, decoding: float
) -> None:
    pace = Pace().beat(trip)
    for _ in range(5):
        pace = pace.sent_raw(RAW, waiting + RAW * byte_seconds)
        pace = pace.sent_coded(CODED, waiting + CODED * byte_seconds, decoding)
    assert pace.byte_seconds == pytest.approx(byte_seconds, abs=1e-9)
    assert pace.decoding == decoding


def test_raw_pictures_of_long_ago_say_nothing() -> None:
    pace = Pace().beat(0.0).sent_raw(RAW, 0.002)
    for _ in range(STALE):
        pace = pace.sent_coded(CODED, 0.1, 0.001)
    assert pace.raw == ()
    assert pace.byte_seconds == pytest.approx(0.1 / CODED)
    assert pace.sent_raw(RAW, 0.6).byte_seconds == pytest.approx(0.5 / (RAW - CODED))
