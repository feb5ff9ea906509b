"""Real device processes, which are always gone at the end."""

import asyncio
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edvit_tf.bundle.reader import Bundle
from edvit_tf.cli.demo_devices import DeviceProcess, Program, ThrowAwayFleet, device_fleet
from edvit_tf.fleet import at_address, deploy
from edvit_tf.fleet.state import save


def command(*arguments: str | Path) -> list[str]:
    """`edvit-tf` as this interpreter runs it."""
    return [sys.executable, "-m", "edvit_tf.cli.main", *map(str, arguments)]


@contextmanager
def deployed_fleet(names: Sequence[str], folder: Path, bundle: Bundle, link: str) -> Iterator[ThrowAwayFleet]:
    """Devices that hold a bundle; `link` "out": they listen, "in": they dial in."""
    with device_fleet(names, folder, dial=free_address() if link == "in" else "") as fleet:
        signed = fleet.sign(bundle)
        if link == "out":
            found = [at_address(device.address) for device in fleet.devices]
            save(fleet.folder, signed, asyncio.run(deploy(signed, found, connect=fleet.connect)))
        else:
            more = ["--devices", str(len(names)), "--timeout", "10", *fleet.listening]
            run = command("fleet", "deploy", bundle.path, "--state", fleet.folder, *more)
            subprocess.run(run, check=True, capture_output=True, timeout=60)
        yield fleet


def free_address() -> str:
    """An address of this machine where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


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
    "Program",
    "ThrowAwayFleet",
    "command",
    "deployed_fleet",
    "device_fleet",
    "elsewhere",
    "free_address",
    "frozen",
    "slowed",
    "started",
]
