"""Real device processes, which are always gone at the end."""

import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

START_SECONDS = 30.0
STOP_SECONDS = 10.0


def command(*arguments: str | Path) -> list[str]:
    """`edvit-tf` as this interpreter runs it."""
    return [sys.executable, "-m", "edvit_tf.cli.main", *map(str, arguments)]


@dataclass
class DeviceProcess:
    """One `edvit-tf device run`, with a store of its own and any free port."""

    name: str
    store: Path
    options: Sequence[str] = ()
    id: str = ""
    port: int = 0
    lines: list[str] = field(default_factory=list)
    _process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def begin(self) -> None:
        """Start it; `wait_ready` waits."""
        self.store.parent.mkdir(parents=True, exist_ok=True)
        with (self.store.parent / f"{self.name}.log").open("ab") as log:
            arguments = [
                "--name",
                self.name,
                "--store",
                str(self.store),
                "--port",
                "0",
                "--json",
                *self.options,
            ]
            self._process = subprocess.Popen(
                command("device", "run", *arguments), stdout=subprocess.PIPE, stderr=log, text=True
            )

    def wait_ready(self) -> None:
        """Wait for the ready line."""
        process = self._running()
        arrived: queue.Queue[str] = queue.Queue()

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                self.lines.append(line)
                arrived.put(line)
            arrived.put("")

        threading.Thread(target=read, daemon=True).start()
        line = arrived.get(timeout=START_SECONDS)
        if not line:
            raise RuntimeError(f"{self.name} ended: {self.log()}")
        ready = json.loads(line)
        self.id, self.port = ready["id"], ready["port"]

    def start(self) -> None:
        self.begin()
        self.wait_ready()

    def kill(self) -> None:
        """End it as a power cut would."""
        self._running().kill()
        self._running().wait(STOP_SECONDS)

    def freeze(self) -> None:
        """Stop it where it stands: its port stays open and nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end and return its exit status."""
        self._running().send_signal(number)
        return self._running().wait(STOP_SECONDS)

    def end(self) -> None:
        """Make sure that it is gone, frozen or not."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait(STOP_SECONDS)
            if self._process.stdout is not None:
                self._process.stdout.close()

    def log(self) -> str:
        return (self.store.parent / f"{self.name}.log").read_text()

    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None, f"{self.name} was not started"
        return self._process


@contextmanager
def running(folder: Path, *names: str, options: Sequence[str] = ()) -> Iterator[list[DeviceProcess]]:
    """Devices that are ready, started at the same time; killed when the block ends, however it ends."""
    devices = [DeviceProcess(name, folder / f"store-{name}", options) for name in names]
    try:
        for device in devices:
            device.begin()
        for device in devices:
            device.wait_ready()
        yield devices
    finally:
        for device in devices:
            device.end()
