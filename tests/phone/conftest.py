"""A real adb server, on a port of its own, and a phone that it takes for real."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.phone.fake_phone import FakePhone


@pytest.fixture
def adb_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """adb with a server that no other program of this machine uses."""
    program = shutil.which("adb")
    if program is None:
        # .ci/run installs it.
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "this needs adb: 'sudo apt install adb'"
        )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    monkeypatch.setenv("HOME", str(tmp_path))  # where it keeps its key
    with (tmp_path / "adb.log").open("wb") as log:
        server = subprocess.Popen([program, "-P", str(port), "nodaemon", "server"], stdout=log, stderr=log)
    try:
        _wait_for(port)
        yield program
    finally:
        server.terminate()
        server.wait(timeout=10)


@pytest.fixture
def phone(adb_server: str, tmp_path: Path) -> Iterator[FakePhone]:
    """A phone that is connected."""
    with FakePhone(tmp_path / "phone") as fake:
        connect(adb_server, fake)
        yield fake


def connect(adb: str, phone: FakePhone) -> None:
    """Have adb's server connect to it, and wait until it may be used."""
    subprocess.run([adb, "connect", phone.serial], check=True, capture_output=True, timeout=30)
    subprocess.run([adb, "-s", phone.serial, "wait-for-device"], check=True, capture_output=True, timeout=30)


def _wait_for(port: int) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)
        else:
            return
