"""Real device processes, which are always gone at the end."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edvit_tf.cli.demo_devices import DeviceProcess, ThrowAwayFleet, device_fleet


def command(*arguments: str | Path) -> list[str]:
    """`edvit-tf` as this interpreter runs it."""
    return [sys.executable, "-m", "edvit_tf.cli.main", *map(str, arguments)]


@contextmanager
def frozen(device: DeviceProcess) -> Iterator[None]:
    """Stopped where it stands: its port stays open and nothing answers."""
    device.send(signal.SIGSTOP)
    try:
        yield
    finally:
        device.send(signal.SIGCONT)


__all__ = ["DeviceProcess", "ThrowAwayFleet", "command", "device_fleet", "frozen"]
