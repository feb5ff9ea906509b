"""The device's own log, as much of it as fits into a little memory, for whoever owns the fleet."""

import asyncio
import contextlib
import itertools
import logging
import re
from collections import deque
from collections.abc import AsyncGenerator

from edvit_tf.json_lines import JsonLines
from edvit_tf.rpc.edvit_pb2 import JournalLine, JournalRequest

MOST_LINES = 1000
LONGEST_LINE = 4000
# What lets somebody join a fleet or pose as a member: tokens, pairing codes, private keys.
_SECRETS = re.compile(
    r"edvit1-[A-Za-z0-9_-]+"
    r"|\b[0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4}\b"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    re.DOTALL,
)


class Journal(logging.Handler):
    """Keeps the last lines of all that is logged, as JSON without secrets, and gives them to readers."""

    def __init__(self, most: int = MOST_LINES) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self._lines: deque[tuple[int, str]] = deque(maxlen=most)
        self._numbers = itertools.count(1)
        self._readers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record; any thread may log."""
        try:
            line = redacted(self.format(record))
        except Exception:  # noqa: BLE001 (what logs must not fail because of it)
            self.handleError(record)
            return
        if len(line) > LONGEST_LINE:
            shorter = logging.makeLogRecord({**record.__dict__, "args": (), "exc_info": None, "fields": {}})
            shorter.msg = redacted(record.getMessage())[: LONGEST_LINE // 4]
            line = self.format(shorter)
        self._lines.append((next(self._numbers), line))
        for event, loop in list(self._readers.items()):
            with contextlib.suppress(RuntimeError):  # a loop that has been closed
                loop.call_soon_threadsafe(event.set)

    async def read(self, request: JournalRequest) -> AsyncGenerator[JournalLine, None]:
        """Yield the last lines, oldest first, and those that come when that is asked for.

        A reader that takes them too slowly misses some.
        """
        event = asyncio.Event()
        self._readers[event] = asyncio.get_running_loop()
        try:
            kept = list(self._lines)
            seen = kept[-1][0] if kept else 0
            for _, line in kept[-request.last :] if request.last else []:
                yield JournalLine(json=line)
            while request.follow:
                await event.wait()
                event.clear()
                for number, line in [one for one in self._lines if one[0] > seen]:
                    seen = number
                    yield JournalLine(json=line)
        finally:
            del self._readers[event]


def redacted(text: str) -> str:
    """The text without what must not leave the device."""
    return _SECRETS.sub("(secret)", text)
