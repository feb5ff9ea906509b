"""Progress of long work, drawn on standard error: one bar for the whole, with the time that is left."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from edvit_tf.cli.output import say, screen


class Bar:
    """A `build.progress.Progress` over several stages, each a share of the whole.

    On a terminal it is a bar; elsewhere (a log, a pipe) a line whenever another percent is done.
    """

    def __init__(self, bar: Progress | None, task: TaskID, shares: Mapping[str, float]) -> None:
        self._bar = bar
        self._task = task
        self._shares = shares
        self._last = -1

    def update(self, stage: str, done: float, message: str) -> None:
        """Draw how far the whole is."""
        before = 0.0
        for name, share in self._shares.items():
            if name == stage:
                break
            before += share
        whole = 100 * (before + done * self._shares[stage])
        if self._bar is not None:
            self._bar.update(self._task, completed=whole, description=f"{stage}: {message}")
        elif int(whole) > self._last:
            self._last = int(whole)
            say(f"{int(whole):3d} %  {stage}: {message}")


@contextmanager
def bar(shares: Mapping[str, float]) -> Iterator[Bar]:
    """A bar over stages; `shares` gives each stage's part of the time, in their order, 1 in all."""
    if not sys.stderr.isatty():
        yield Bar(None, TaskID(0), shares)
        return
    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left", markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    # A long window: sub-models report an epoch at a time.
    with Progress(*columns, console=screen, transient=True, speed_estimate_period=600) as drawn:
        yield Bar(drawn, drawn.add_task("starting", total=100), shares)
