"""What deploy leaves for infer: whole, or as it was before."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import BundleError, EdvitError, UsageError
from edvit_tf.fleet import Announced
from edvit_tf.fleet.state import FleetState, default_folder, load, save
from tests.fleet.fakes import device_id, fleet_of


def test_what_was_saved_is_loaded(bundle: Bundle, tmp_path: Path) -> None:
    _, deployment = fleet_of(bundle)
    save(tmp_path / "state", bundle, deployment)
    again, loaded = load(tmp_path / "state")
    assert again.manifest_bytes == bundle.manifest_bytes
    assert again.path != bundle.path
    assert loaded == deployment


def test_a_new_deployment_replaces_the_old_one(bundle: Bundle, newer: Bundle, tmp_path: Path) -> None:
    _, deployment = fleet_of(bundle)
    state = tmp_path / "state"
    for each in (bundle, newer, newer):
        save(state, each, deployment)
    assert load(state)[0].manifest.version == newer.manifest.version
    assert len(list((state / "bundles").iterdir())) == 1, "deployed twice: no older one is left"
    assert not list(state.rglob("*.part"))


def test_a_copy_that_fails_leaves_the_old_state(
    bundle: Bundle, newer: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, deployment = fleet_of(bundle)
    save(tmp_path, bundle, deployment)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edvit_tf.fleet.state.shutil.copytree", full)
    with pytest.raises(EdvitError, match="No space left on device") as caught:
        save(tmp_path, newer, deployment)
    assert caught.value.code == "state.write"
    assert load(tmp_path)[0].manifest.version == bundle.manifest.version


def test_nothing_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fleet deploy BUNDLE") as caught:
        load(tmp_path / "none")
    assert caught.value.code == "state.missing"


def test_the_one_before_stays_to_go_back_to(bundle: Bundle, newer: Bundle, tmp_path: Path) -> None:
    _, deployment = fleet_of(bundle)
    save(tmp_path, bundle, deployment)
    before = load(tmp_path)[0]
    save(tmp_path, newer, deployment)
    assert before.path.is_dir()
    assert len(list((tmp_path / "bundles").iterdir())) == 2


@pytest.mark.parametrize("text", ["[]", "x" * 5000])
def test_a_broken_file_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "fleet.db").write_text(text)
    with pytest.raises(UsageError, match="cannot be read") as caught:
        load(tmp_path)
    assert caught.value.code == "state.broken"


def test_a_file_of_another_version_is_left_alone(bundle: Bundle, tmp_path: Path) -> None:
    save(tmp_path, bundle, fleet_of(bundle)[1])
    with sqlite3.connect(tmp_path / "fleet.db") as database:
        database.execute("PRAGMA user_version = 7")
    with pytest.raises(UsageError, match="another version"):
        load(tmp_path)


def test_a_folder_that_cannot_be_written_is_one_sentence(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdvitError) as caught:
        save(tmp_path / "file", bundle, fleet_of(bundle)[1])
    assert caught.value.code == "state.write"


@pytest.fixture
def state(bundle: Bundle, tmp_path: Path) -> Iterator[FleetState]:
    with FleetState(tmp_path) as opened:
        opened.deploy(bundle, fleet_of(bundle)[1])
        yield opened


def test_a_device_that_was_adopted_is_of_the_fleet_without_a_sub_model(state: FleetState) -> None:
    state.enrol(Announced("5", device_id(5), "spare"))
    _, deployment = state.deployed()
    assert deployment.devices[-1] == Announced("5", device_id(5), "spare")
    assert deployment.wanted(device_id(5)) == ()


def test_who_holds_what_outlives_the_process(state: FleetState) -> None:
    submodel, home = min(state.deployed()[1].assignment.items())
    state.enrol(Announced("5", device_id(5), "spare"))
    state.move(submodel, device_id(5), "took it")
    assert submodel in state.deployed()[1].wanted(home), "it takes it back"
    state.drain(home, drained=True)
    with FleetState(state.folder) as again:
        _, deployment = again.deployed()
    assert deployment.moved == {submodel: device_id(5)}
    assert deployment.holder(submodel) == device_id(5)
    assert submodel in deployment.submodels_of(home)
    assert deployment.wanted(home) == (), "drained"
    assert deployment.wanted(device_id(5)) == (submodel,)
    assert deployment.drained == {home}
    assert [event.text for event in state.events(last=2)] == ["took it", "is to be drained"]


def test_what_a_removed_device_was_meant_for_stays_where_it_is(state: FleetState) -> None:
    submodel, home = min(state.deployed()[1].assignment.items())
    state.enrol(Announced("5", device_id(5), "spare"))
    state.move(submodel, device_id(5), "took it")
    state.remove(home)
    _, deployment = state.deployed()
    assert (deployment.assignment[submodel], deployment.moved) == (device_id(5), {})
    assert home not in {device.id for device in deployment.devices}
    assert state.removed() == {home}
    state.enrol(Announced("9", home, "back"))
    assert state.removed() == frozenset()


def test_another_process_sees_that_something_has_changed(state: FleetState) -> None:
    with FleetState(state.folder) as other:
        before = state.changes()
        state.note("our own writing is no news")
        assert state.changes() == before
        other.drain(device_id(0), drained=True)
        assert state.changes() != before


def test_events_are_numbered_and_bounded(state: FleetState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edvit_tf.fleet.state.MOST_EVENTS", 5)
    for number in range(9):
        state.note(f"event {number}")
    events = state.events()
    assert [event.text for event in events] == [f"event {number}" for number in range(4, 9)]
    assert [event.text for event in state.events(after=events[-2].number)] == ["event 8"]


@pytest.mark.fault
def test_a_process_that_is_killed_while_it_writes_leaves_a_whole_state(
    bundle: Bundle, tmp_path: Path
) -> None:
    save(tmp_path, bundle, fleet_of(bundle)[1])
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            writer.kill()
        _, deployment = load(tmp_path)
        assert len(set(deployment.moved.values())) <= 1
        with FleetState(tmp_path) as state:
            numbers = [event.number for event in state.events()]
        assert numbers == sorted(set(numbers))


WRITER = """
import sys
from pathlib import Path
from edvit_tf.fleet.state import FleetState
state = FleetState(Path(sys.argv[1]))
submodel = min(state.deployed()[1].assignment)
devices = [device.id for device in state.devices()]
for number in range(10**6):
    state.move(submodel, devices[number % 2], "moved")
    if number == 3:
        print("writing", flush=True)
"""


def test_a_copy_that_was_changed_is_found_out(bundle: Bundle, tmp_path: Path) -> None:
    _, deployment = fleet_of(bundle)
    save(tmp_path, bundle, deployment)
    (flatbuffer, *_) = (tmp_path / "bundles").rglob("submodel-0*.tflite")
    data = bytearray(flatbuffer.read_bytes())
    data[-1] ^= 1
    flatbuffer.write_bytes(data)
    with pytest.raises(BundleError):
        load(tmp_path)


def test_the_default_is_in_the_users_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "edvit-tf" / "fleet"
