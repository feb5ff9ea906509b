"""What an operator asks and decides, through the state of a fleet whose aggregator seems to run."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.cli.main import main
from edvit_tf.fleet import Announced
from edvit_tf.fleet.hold import hold
from edvit_tf.fleet.keys import make_keys
from edvit_tf.fleet.state import FleetState
from edvit_tf.rpc.edvit_pb2 import HelloReply
from tests.fleet.fakes import RUNTIME, device_id, fleet_of


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Iterator[Path]:
    """Two devices that hold a sub-model each, the second down, and a spare."""
    make_keys(tmp_path)
    with FleetState(tmp_path) as state, hold(tmp_path):
        state.deploy(bundle, fleet_of(bundle)[1])
        state.enrol(Announced("2", device_id(2), "spare"))
        for known in state.devices():
            hello = HelloReply(
                id=known.id,
                name=known.name,
                runtime=RUNTIME,
                accelerator_reason="libedgetpu.so.1 cannot be used: it is not installed",
                memory_bytes=10**9,
                energy_joules=1,
                bundle_version=bundle.manifest.version,
            )
            state.seen(replace(known, state="up", since=1.7e9, hello=hello.SerializeToString()), "is up")
        down = next(known for known in state.devices() if known.name == "fake-1")
        gone = replace(down, state="down", reason="the wire is cut", since=1.8e9)
        state.seen(gone, "is down: the wire is cut")
        yield tmp_path


def edvit(capsys: pytest.CaptureFixture[str], *arguments: str | Path, status: int = 0) -> Any:
    assert main([*map(str, arguments), "--json"]) == status
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return lines[0] if len(lines) == 1 else lines


def test_status_says_since_when_and_why(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = edvit(capsys, "fleet", "status", "--state", folder)
    said = {row["name"]: (row["state"], row["reason"], row["since"]) for row in rows}
    assert said == {
        "fake-0": ("up", "", "2023-11-14T22:13:20+00:00"),
        "fake-1": ("down", "the wire is cut", "2027-01-15T08:00:00+00:00"),
        "spare": ("up", "", "2023-11-14T22:13:20+00:00"),
    }
    monkeypatch.setenv("COLUMNS", "50")
    assert main(["fleet", "status", "--state", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "fake-1 is down: the wire is cut" in printed
    assert "spare has no accelerator: libedgetpu.so.1 cannot be used" in printed
    assert "…" not in printed


def test_placements_say_what_is_possible_and_why_the_rest_is_not(
    folder: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    with FleetState(folder) as state:
        state.drain(device_id(0), drained=True)
    rows = edvit(capsys, "fleet", "placements", "--state", folder)
    assert [row["submodel"] for row in rows] == [part.id for part in bundle.manifest.submodels]
    for row in rows:
        reasons = {option["name"]: option["reason"] for option in row["options"]}
        assert reasons == {
            "fake-0": "it is being drained",
            "fake-1": "it is down: the wire is cut",
            "spare": "",
        }
        assert [option["possible"] for option in row["options"]] == [False, False, True]
    assert main(["fleet", "placements", "--state", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "fake-1: it is down" in said
    assert "…" not in said


def test_logs_say_what_happened(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = edvit(capsys, "fleet", "logs", "--state", folder)
    assert lines[0]["event"].endswith("is deployed")
    assert lines[-1]["event"] == "is down: the wire is cut"
    assert edvit(capsys, "fleet", "logs", "--last", "1", "--state", folder)["name"] == "fake-1"


def test_drain_and_its_undoing_are_written_down(
    folder: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    said = edvit(capsys, "fleet", "drain", "fake-0", "--state", folder)
    assert said["holds"] == [min(bundle.manifest.submodels, key=lambda part: part.id).id]
    with FleetState(folder) as state:
        assert state.deployed()[1].drained == {device_id(0)}
    edvit(capsys, "fleet", "drain", "fake-0", "--undo", "--state", folder)
    with FleetState(folder) as state:
        assert state.deployed()[1].drained == frozenset()


def test_a_device_that_holds_something_is_not_removed_unasked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = edvit(capsys, "fleet", "remove", "fake-0", "--state", folder, status=2)["error"]
    assert error["code"] == "fleet.holds"
    assert "fleet drain fake-0" in error["message"]
    assert edvit(capsys, "fleet", "remove", "spare", "--state", folder)["removed"]
    assert edvit(capsys, "fleet", "remove", "fake-0", "--force", "--state", folder)["held"]
    rows = edvit(capsys, "fleet", "status", "--state", folder)
    assert [row["name"] for row in rows] == ["fake-1"]


@pytest.mark.parametrize("verb", ["drain", "remove", "logs"])
def test_a_device_that_is_not_there_is_one_sentence(
    verb: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = edvit(capsys, "fleet", verb, "oak", "--state", folder, status=2)["error"]
    assert error["code"] == "fleet.device"
    assert "fake-0" in error["message"]
    with FleetState(folder) as state:
        state.enrol(Announced("5", device_id(5), "spare"))
    error = edvit(capsys, "fleet", verb, "spare", "--state", folder, status=2)["error"]
    assert "several devices" in error["message"]
    assert edvit(capsys, "fleet", "drain", device_id(5), "--state", folder)["drained"]


@pytest.mark.parametrize("verb", ["status", "placements", "logs"])
def test_without_a_state_it_says_what_to_do(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = edvit(capsys, "fleet", verb, "--state", tmp_path / "none", status=2)["error"]
    assert "fleet deploy BUNDLE" in error["message"]
    assert not (tmp_path / "none").exists()
