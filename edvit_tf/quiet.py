"""Standard error is where people look for what went wrong: other libraries' greetings are kept off it."""

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator

_STANDARD_ERROR = 2
_redirection = threading.Lock()


@contextlib.contextmanager
def without_lines(pattern: re.Pattern[bytes]) -> Iterator[None]:
    """Keep what matches off standard error; all else that is written meanwhile comes through, a little later.

    For native code that writes there itself and has no setting for it. Unlike a filter on `sys.stderr` this
    works on the file descriptor, of which the process has one: blocks wait for each other.
    """
    with _redirection, tempfile.TemporaryFile() as kept:
        sys.stderr.flush()
        original = os.dup(_STANDARD_ERROR)
        os.dup2(kept.fileno(), _STANDARD_ERROR)
        try:
            yield
        finally:
            os.dup2(original, _STANDARD_ERROR)
            os.close(original)
            kept.seek(0)
            written = pattern.sub(b"", kept.read())
            if written:
                os.write(_STANDARD_ERROR, written)
