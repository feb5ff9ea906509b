"""What a device says in its log is shown on somebody's terminal: bounded and clean, whatever it is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edvit_tf.fleet.journal import LONGEST_TEXT, Line, read_journal, read_line

anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["time", "message", "level", "x"]), inner)
    ),
    max_leaves=8,
)


@pytest.mark.fault
@given(st.one_of(st.text(), anything.map(json.dumps)))
def test_every_line_is_clean_and_short(text: str) -> None:
    line = read_line(text)
    for part in (line.time, line.level, line.logger, line.message):
        assert part.isprintable()
        assert len(part) <= LONGEST_TEXT


def test_a_line_is_read() -> None:
    said = {"time": "2026", "level": "error", "logger": "a", "message": "b", "exception": "Trace\n  x"}
    assert read_line(json.dumps(said)) == Line("2026", "error", "a", "b: Trace x")
    assert read_line("\x1b[2Jgone").message == "[2Jgone"
    assert read_line("[" * 100_000).message.startswith("[[[")


class Flooding:
    """A link to a device that never stops."""

    async def journal(self, last: int, *, follow: bool, timeout: float | None):  # type: ignore[no-untyped-def]
        del last, follow, timeout
        while True:
            yield '{"message": "x"}'


async def test_a_device_gives_no_more_lines_than_were_asked_for() -> None:
    lines = read_journal(Flooding(), last=3, follow=False)  # type: ignore[arg-type]
    assert len([line async for line in lines]) == 3
