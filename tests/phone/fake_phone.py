"""A phone as adb's server sees it: the device's side of adb's protocol over TCP, with a folder for its disk.

Shell commands are run by this machine's shell, with the phone's one writable folder put in place; programs
that only a phone has (logcat) are scripts in a folder of their own, first in PATH.
"""

import os
import queue
import re
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

HEADER = struct.Struct("<4sIIIII")
PACKET = struct.Struct("<BI")  # of the shell protocol: which stream, how many bytes
SYNC = struct.Struct("<4sI")
WRITABLE = "/data/local/tmp"
STDOUT, STDERR, EXIT = 1, 2, 3
LARGEST = 256 * 1024


class FakePhone:
    """Listens on a free port of loopback, and is one phone for each connection."""

    def __init__(self, folder: Path, model: str = "Fake_Phone_9") -> None:
        self.disk = folder / "disk"
        self.programs = folder / "programs"
        self.installed: list[bytes] = []
        self.install_says = "Success"
        self.commands: list[str] = []
        self.model = model
        self.disk.mkdir(parents=True)
        self.programs.mkdir()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._socket.getsockname()[1]}"

    def program(self, name: str, script: str) -> None:
        """Put a program on the phone."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=_Connection(self, connection).run, daemon=True).start()


class _Connection:
    """One host: messages in, each to its stream."""

    def __init__(self, phone: FakePhone, connection: socket.socket) -> None:
        self.phone = phone
        self._socket = connection
        self._streams: dict[int, _Stream] = {}
        self._lock = threading.Lock()

    def run(self) -> None:
        try:
            while True:
                command, first, second, size, _, _ = HEADER.unpack(self._exactly(HEADER.size))
                self._take(command, first, second, self._exactly(size))
        except (EOFError, OSError):
            for stream in self._streams.values():
                stream.close()

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        magic = int.from_bytes(command, "little") ^ 0xFFFFFFFF
        with self._lock:
            self._socket.sendall(HEADER.pack(command, first, second, len(data), sum(data), magic) + data)

    def _take(self, command: bytes, first: int, second: int, data: bytes) -> None:
        if command == b"CNXN":
            about = (
                f"device::ro.product.name=fake;ro.product.model={self.phone.model};ro.product.device=fake;"
            )
            self.send(b"CNXN", 0x01000001, LARGEST, f"{about}features=shell_v2,cmd".encode())
        elif command == b"OPEN":
            number = len(self._streams) + 1
            stream = self._streams[number] = _Stream(self, number, first)
            self.send(b"OKAY", number, first)
            service = data.rstrip(b"\0").decode()
            threading.Thread(target=stream.serve, args=(service,), daemon=True).start()
        elif second in self._streams and command == b"WRTE":
            self._streams[second].incoming.put(data)
            self.send(b"OKAY", second, first)
        elif second in self._streams and command == b"OKAY":
            self._streams[second].heard.release()
        elif second in self._streams and command == b"CLSE":
            self._streams[second].close()

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._socket.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data


class _Stream:
    """One service that the host has opened."""

    def __init__(self, connection: _Connection, number: int, theirs: int) -> None:
        self.incoming: queue.Queue[bytes] = queue.Queue()
        self.heard = threading.Semaphore(1)
        self._connection = connection
        self._phone = connection.phone
        self._number = number
        self._theirs = theirs
        self._rest = b""
        self._over = False

    def close(self) -> None:
        self._over = True
        self.incoming.put(b"")
        self.heard.release()

    def serve(self, service: str) -> None:
        kind, _, rest = service.partition(":")
        served: dict[str, Callable[[str], None]] = {
            "shell": self._shell,
            "sync": self._sync,
            "exec": self._exec,
        }
        try:
            served[kind.split(",")[0]](rest)
        except (EOFError, OSError):
            pass
        finally:
            self._connection.send(b"CLSE", self._number, self._theirs)

    def _write(self, data: bytes) -> None:
        for start in range(0, len(data), LARGEST // 4):
            self.heard.acquire()
            if self._over:
                raise EOFError
            self._connection.send(b"WRTE", self._number, self._theirs, data[start : start + LARGEST // 4])

    def _read(self, size: int) -> bytes:
        while len(self._rest) < size:
            piece = self.incoming.get()
            if not piece:
                raise EOFError
            self._rest += piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def _shell(self, command: str) -> None:
        self._phone.commands.append(command)
        done = subprocess.run(
            ["sh", "-c", command.replace(WRITABLE, str(self._phone.disk))],
            env={"PATH": f"{self._phone.programs}{os.pathsep}{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        for stream, data in (
            (STDOUT, done.stdout),
            (STDERR, done.stderr),
            (EXIT, bytes([done.returncode & 255])),
        ):
            if data:
                self._write(PACKET.pack(stream, len(data)) + data)

    def _exec(self, command: str) -> None:
        self._phone.commands.append(command)
        size = re.search(r"-S '?(\d+)", command)
        assert size is not None, command
        self._phone.installed.append(self._read(int(size.group(1))))
        self._write(f"{self._phone.install_says}\n".encode())

    def _sync(self, _: str) -> None:
        while True:
            what, size = SYNC.unpack(self._read(SYNC.size))
            if what == b"QUIT":
                return
            name = self._read(size).decode()
            if what == b"STAT":
                place = self._place(name)
                there = place.stat() if place.exists() else None
                self._write(
                    struct.pack("<4sIII", what, *((there.st_mode, there.st_size, 0) if there else (0, 0, 0)))
                )
            elif what == b"SEND":
                self._receive(self._place(name.rpartition(",")[0]))

    def _receive(self, place: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as file:
            while True:
                what, size = SYNC.unpack(self._read(SYNC.size))
                if what == b"DONE":
                    break
                file.write(self._read(size))
        self._write(SYNC.pack(b"OKAY", 0))

    def _place(self, name: str) -> Path:
        assert name.startswith(WRITABLE), name
        return self._phone.disk / name.removeprefix(WRITABLE).lstrip("/")
