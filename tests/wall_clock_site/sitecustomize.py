"""Python's sleep for processes under libfaketime 0.9.10.

That takes an instant of the monotonic clock for one of the wall clock's, so that `clock_nanosleep` fails.
`select` is given a duration.
"""

import select
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex) -> None:
    select.select([], [], [], float(seconds))


time.sleep = _sleep
