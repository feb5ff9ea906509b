"""Real device processes, which are always gone at the end."""

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
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


@contextmanager
def slowed(device: DeviceProcess, times: float, *, slice_seconds: float) -> Iterator[None]:
    """Let it run for a fraction of the time, one slice after another."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(slice_seconds):
            device.send(signal.SIGSTOP)
            over.wait(slice_seconds * (times - 1))
            device.send(signal.SIGCONT)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def elsewhere(
    device: DeviceProcess, *, interface: str = "127.0.0.1", under: Sequence[str] = ()
) -> DeviceProcess:
    """The same device, which has stopped, to be started in another place or under another command."""
    return DeviceProcess(device.name, device.store.parent, interface=interface, under=under)


@contextmanager
def started(*devices: DeviceProcess) -> Iterator[list[str]]:
    """Start them side by side; their addresses."""
    with ExitStack() as exits:
        for device in devices:
            exits.callback(device.end)
            device.begin()
        for device in devices:
            device.wait_ready()
        yield [device.address for device in devices]


__all__ = [
    "DeviceProcess",
    "ThrowAwayFleet",
    "command",
    "device_fleet",
    "elsewhere",
    "frozen",
    "slowed",
    "started",
]
