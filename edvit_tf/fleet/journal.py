"""A device's own log, read from afar: whatever it sends is bounded and cleaned before anybody sees it."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass

from edvit_tf.rpc.channel import ChannelLink
from edvit_tf.rpc.text import clean_text

LONGEST_LINE = 8000
LONGEST_TEXT = 1000
READ_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a device's log; `time` is the device's own clock's, as ISO 8601 if it is honest."""

    time: str
    level: str
    logger: str
    message: str

    def to_json(self) -> dict[str, object]:
        """The line as JSON."""
        return dict(asdict(self))


async def read_journal(link: ChannelLink, *, last: int, follow: bool) -> AsyncGenerator[Line, None]:
    """Yield the last lines of the device's log, at most so many, and with `follow` those that come, for ever.

    Raises:
        ProtocolError: the device is of a version that keeps no log for others.
        LinkError: it cannot be reached, or the connection broke.
    """
    count = 0
    async with aclosing(link.journal(last, follow=follow, timeout=None if follow else READ_SECONDS)) as lines:
        async for text in lines:
            count += 1
            if not follow and count > last:
                return
            yield read_line(text)


def read_line(text: str) -> Line:
    """A line as it came; of what is no JSON object the text itself is the message."""
    try:
        said = json.loads(text[:LONGEST_LINE])
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        said = {"message": text[:LONGEST_LINE]}
    message = _text(said.get("message"))
    if exception := _text(said.get("exception")):
        message = f"{message}: {exception}"
    return Line(
        time=clean_text(_text(said.get("time")), longest=40),
        level=clean_text(_text(said.get("level")), longest=10),
        logger=clean_text(_text(said.get("logger"))),
        message=clean_text(message, longest=LONGEST_TEXT),
    )


def _text(value: object) -> str:
    # A line break is a space here: one line stays one.
    return " ".join(value.split()) if isinstance(value, str) else ""
