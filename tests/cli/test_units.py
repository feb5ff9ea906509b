"""systemd units that systemd itself accepts, and what services tell it."""

import asyncio
import contextlib
import json
import shutil
import socket
from pathlib import Path

import pytest

from edvit_tf.cli.main import main
from edvit_tf.cli.units import Service
from edvit_tf.cli.watchdog import living, notify

SYSTEMD = shutil.which("systemd-analyze") is not None


@pytest.mark.parametrize("user", ["", "daemon"])
@pytest.mark.parametrize("verb", ["device", "serve"])
def test_the_unit_says_what_was_asked_for_and_systemd_takes_it(
    verb: str, user: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    where = tmp_path / "state of %h"
    asked = ["device", "install-service", "--dial", "aggregator.example:7436"]
    asked += ["--name", 'Küche "1" $HOME 100%', "--store"]
    if verb == "serve":
        asked = [
            "serve",
            "--install-service",
            "--http",
            "127.0.0.1:9000",
            "--listen",
            "0.0.0.0:7436",
            "--state",
        ]
    as_whom = ["--user", user] if user else []
    arguments = [*asked, str(where), "--unit-folder", str(tmp_path / "units"), *as_whom, "--json"]
    assert main(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["checked"] is SYSTEMD
    text = Path(said["unit"]).read_text()
    assert ("User=daemon" in text) == bool(user)
    assert "Restart=always" in text
    if verb == "serve":
        assert '"--http" "127.0.0.1:9000"' in text
        assert '"--listen" "0.0.0.0:7436"' in text
    else:
        assert '"--dial" "aggregator.example:7436"' in text
        assert r'"--name" "Küche \"1\" $$HOME 100%%"' in text
    assert '/state of %%h"' in text


@pytest.mark.skipif(not SYSTEMD, reason="needs systemd-analyze")
def test_what_systemd_does_not_take_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edvit_tf.cli.units.sys.executable", "/no/such/python")
    options = ["--store", str(tmp_path / "store"), "--unit-folder", str(tmp_path), "--user", "daemon"]
    assert main(["device", "install-service", *options, "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "unit.wrong"
    assert "/no/such/python" in error["message"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--user", "no body"], "--user must be"),
        (["--name", "a\nb"], "cannot stand in a unit file"),
        ([], "say with --user"),
    ],
)
def test_a_mistake_is_one_sentence(
    options: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.delenv("SUDO_USER", raising=False)
    where = ["--store", str(tmp_path / "store"), "--unit-folder", str(tmp_path / "units")]
    more = options if "--user" in options or not options else [*options, "--user", "daemon"]
    assert main(["device", "install-service", *where, *more, "--json"]) == 2
    assert sentence in json.loads(capsys.readouterr().out)["error"]["message"]
    assert not list(tmp_path.rglob("*.service"))


def test_a_service_says_that_it_is_ready_and_that_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(5)
        notify("READY=1")
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        notify("READY=1")
        assert manager.recv(100) == b"READY=1"

        async def live() -> None:
            async with living():
                await asyncio.sleep(0.3)

        asyncio.run(live())
        manager.setblocking(False)
        said = []
        with contextlib.suppress(BlockingIOError):
            while True:
                said.append(manager.recv(100))
        assert 4 <= len(said) <= 8
        assert set(said) == {b"WATCHDOG=1"}


def test_a_user_that_is_not_root_gets_a_service_of_their_own(tmp_path: Path) -> None:
    own = Service("x", "d", ("serve",), tmp_path, 10)
    assert "WantedBy=default.target" in own.unit()
    assert "User=" not in own.unit()
