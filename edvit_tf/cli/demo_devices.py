"""Device agents as processes of their own: started, killed, started again, and always gone at the end."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from edvit_tf.errors import DeviceError

READY_SECONDS = 60.0
STOP_SECONDS = 10.0


class DeviceProcess:
    """One `edvit-tf device run` with its own name, store folder and log.

    It listens on loopback, on any free port: another one after each start, as after a change of network.
    `id` and `address` are what its ready line said.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.id = ""
        self.address = ""
        self._store = folder / name
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process without waiting for it.

        Raises:
            DeviceError: it runs already.
        """
        if self.running:
            raise DeviceError(f"{self.name} runs already")
        command = [sys.executable, "-m", "edvit_tf.cli.main", "device", "run", "--json"]
        options = ["--name", self.name, "--store", str(self._store), "--port", "0"]
        self._store.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=log)

    def wait_ready(self) -> None:
        """Wait for the ready line.

        Raises:
            DeviceError: it ended, said something else, or took more than `READY_SECONDS`.
        """
        process = self._started()
        line = _read_line(_output(process), READY_SECONDS)
        try:
            ready = json.loads(line)
            self.id, self.address = str(ready["id"]), f"{ready['address']}:{ready['port']}"
        except (ValueError, KeyError, TypeError):
            raise DeviceError(f"{self.name} did not get ready: its log is {self._log}") from None

    def kill(self) -> None:
        """SIGKILL: no goodbye, nothing tidied up."""
        process = self._started()
        process.send_signal(signal.SIGKILL)
        self._end(process)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for one that does not listen."""
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        self._end(process)

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.poll() is None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise DeviceError(f"{self.name} has not been started")
        return self._process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        _output(process).close()
        self._process = None


class DeviceProcesses:
    """Several devices, started side by side; leaving the context ends those that still run."""

    def __init__(self, names: list[str], folder: Path) -> None:
        self.devices = tuple(DeviceProcess(name, folder) for name in names)
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as exits:
            for device in self.devices:
                exits.callback(device.stop)
                device.start()
            for device in self.devices:
                device.wait_ready()
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()

    def by_id(self, device: str) -> DeviceProcess:
        """The device whose id that is."""
        return next(process for process in self.devices if process.id == device)


def _output(process: subprocess.Popen[bytes]) -> IO[bytes]:
    if process.stdout is None:
        raise DeviceError("the device was started without an output to read")
    return process.stdout


def _read_line(output: IO[bytes], seconds: float) -> bytes:
    """The first line, or what there is of it when the output ends or time is up."""
    line = b""
    end = time.monotonic() + seconds
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([output], [], [], max(0.0, end - time.monotonic()))
        piece = os.read(output.fileno(), 4096) if readable else b""
        if not piece:
            break
        line += piece
    return line
