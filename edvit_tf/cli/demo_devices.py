"""A throw-away fleet of device processes: started, killed, started again, and always gone at the end."""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import DeviceError
from edvit_tf.fleet.connect import with_keys
from edvit_tf.fleet.discover import DIALLED, Announced
from edvit_tf.fleet.enrol import enrol
from edvit_tf.fleet.keys import FleetKeys, make_keys
from edvit_tf.fleet.member import Connect
from edvit_tf.fleet.signing import signed
from edvit_tf.fleet.state import FleetState
from edvit_tf.fleet.tokens import Tokens
from edvit_tf.rpc.certificates import fingerprint
from edvit_tf.rpc.pairing_channel import PairingLink

READY_SECONDS = 60.0
STOP_SECONDS = 10.0
TOKEN_LIFE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Program:
    """What runs a device: a command that understands `run`, and options of its own."""

    command: tuple[str, ...]
    options: tuple[str, ...] = ()


PYTHON = Program((sys.executable, "-m", "edvit_tf.cli.main", "device"))


class DeviceProcess:
    """One device, `edvit-tf device run` or another program's, with a name, a store and a log of its own.

    It listens on `interface`, on any free port: another one after each start, as after a change of network.
    `id` and `port` are what its ready line said. `options` are given to `device run` as well, and `under` is
    a command that runs it, such as `nice`.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        interface: str = "127.0.0.1",
        options: Sequence[str] = (),
        under: Sequence[str] = (),
        program: Program = PYTHON,
    ) -> None:
        self.name = name
        self.interface = interface
        self._options = options
        self._under = under
        self._program = program
        self.id = ""
        self.port = 0
        self.store = folder / name
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where it listens, "host:port"."""
        return f"{self.interface}:{self.port}"

    @property
    def pid(self) -> int:
        """Its process."""
        return self._started().pid

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.begin()
        self.wait_ready()

    def begin(self) -> None:
        """Start it without waiting.

        Raises:
            DeviceError: it runs already.
        """
        if self.running:
            raise DeviceError(f"{self.name} runs already")
        self.end()
        command = [*self._program.command, "run", "--json", *self._program.options]
        where = ["--store", str(self.store), "--port", "0", "--interface", self.interface]
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._under, *command, "--name", self.name, *where, *self._options],
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def wait_ready(self) -> None:
        """Wait for the ready line.

        Raises:
            DeviceError: it ended, said something else, or took more than `READY_SECONDS`.
        """
        try:
            ready = self.said()
            self.id, self.port = str(ready["id"]), int(ready["port"])
        except (ValueError, KeyError, TypeError):
            raise DeviceError(f"{self.name} did not get ready: its log is {self._log}") from None

    def said(self) -> Any:
        """Its next line of JSON; ValueError when none comes within `READY_SECONDS`."""
        return json.loads(read_line(_output(self._started()), READY_SECONDS))

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._started().send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would: no goodbye, nothing tidied up."""
        self.send(signal.SIGKILL)
        self._started().wait(STOP_SECONDS)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, and return its exit status."""
        self.send(number)
        return self._started().wait(STOP_SECONDS)

    def end(self) -> None:
        """Make sure that it is gone: politely, and if that does not help, not."""
        process = self._process
        if process is None:
            return
        if self.running:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
        _output(process).close()
        self._process = None

    def log(self) -> str:
        """All that it said on standard error."""
        return self._log.read_text()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise DeviceError(f"{self.name} has not been started")
        return self._process


@dataclass(frozen=True, slots=True)
class ThrowAwayFleet:
    """Devices, and the fleet's folder with the keys that they have joined.

    `dial` is where they dial in, empty when they listen themselves.
    """

    devices: tuple[DeviceProcess, ...]
    folder: Path
    keys: FleetKeys
    dial: str = ""

    @property
    def listening(self) -> tuple[str, ...]:
        """What an aggregator has to be told so that they can dial in."""
        return ("--listen", self.dial) if self.dial else ()

    @property
    def connect(self) -> Connect:
        """How to reach the devices."""
        return with_keys(self.keys)

    def sign(self, bundle: Bundle) -> Bundle:
        """A copy of the bundle that the devices install."""
        return signed(bundle, self.keys, self.folder)


@contextmanager
def device_fleet(
    names: Sequence[str],
    folder: Path,
    *,
    dial: str = "",
    dialling: Collection[str] | None = None,
    programs: Mapping[str, Program] = MappingProxyType({}),
) -> Iterator[ThrowAwayFleet]:
    """Make keys in `folder`/fleet, and devices, started side by side, that have joined with a one-use token.

    With `dial` ("host:port") those named in `dialling`, by default all, listen nowhere once they have joined,
    and dial in there. `programs` says by name which are not `edvit-tf device`. All processes are gone when
    the block ends, however it ends.
    """
    state = folder / "fleet"
    keys = make_keys(state)
    tokens = Tokens(state)
    authority = fingerprint(keys.authority.certificate)

    there = frozenset(names if dialling is None else dialling) if dial else frozenset[str]()

    def made(name: str) -> DeviceProcess:
        token = tokens.issue(authority, life=TOKEN_LIFE)
        options = ["--join", str(token), *(("--dial", dial) if name in there else ())]
        return DeviceProcess(name, folder, options=options, program=programs.get(name, PYTHON))

    fleet = ThrowAwayFleet(tuple(made(name) for name in names), state, keys, dial)
    with ExitStack() as exits:
        for device in fleet.devices:
            exits.callback(device.end)
            device.begin()
        for device in fleet.devices:
            _join(device, keys, tokens)
        for device in fleet.devices:
            device.wait_ready()
            if device.name in there:
                with FleetState(state) as opened:  # only members may dial in
                    opened.enrol(Announced(f"{DIALLED}{dial}", device.id, device.name))
        yield fleet


def _join(device: DeviceProcess, keys: FleetKeys, tokens: Tokens) -> None:
    try:
        waiting = device.said()["waiting"]
        where = f"{waiting['address']}:{waiting['port']}"
    except (ValueError, KeyError, TypeError):
        raise DeviceError(f"{device.name} did not wait to join: its log says why") from None
    asyncio.run(enrol(PairingLink(where).pair, keys, tokens.secret, on_proved=tokens.use))


def _output(process: subprocess.Popen[bytes]) -> IO[bytes]:
    if process.stdout is None:
        raise DeviceError("the device was started without an output to read")
    return process.stdout


def read_line(output: IO[bytes], seconds: float) -> bytes:
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
