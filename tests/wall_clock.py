"""A wall clock that a test moves, for the processes that run under it; their monotonic clock is left alone.

It needs Debian's `faketime`.
"""

import glob
import os
from datetime import timedelta
from pathlib import Path

import pytest


class WallClock:
    """The clock of every process that was started with the command `under` before its own."""

    def __init__(self, file: Path) -> None:
        """Keep the time in `file`. Without `faketime` the test is skipped, and under CI=true it fails."""
        libraries = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")  # noqa: PTH207
        if not libraries:
            if os.environ.get("CI") == "true":
                pytest.fail("the clock cannot be moved: install Debian's faketime")
            pytest.skip("needs Debian's faketime")
        self._file = file
        self.under = [
            "env",
            f"LD_PRELOAD={libraries[0]}",
            f"FAKETIME_TIMESTAMP_FILE={file}",
            "FAKETIME_NO_CACHE=1",
            "DONT_FAKE_MONOTONIC=1",
            f"PYTHONPATH={Path(__file__).parent / 'wall_clock_site'}",
        ]
        self.move(timedelta(0))

    def move(self, by: timedelta) -> None:
        """Set it so far from the machine's own, at once and for all of them."""
        fresh = self._file.with_suffix(".fresh")
        fresh.write_text(f"{by.total_seconds():+.0f}\n")
        fresh.rename(self._file)
