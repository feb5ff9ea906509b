"""What deploy leaves for infer: whole, or as it was before."""

from pathlib import Path

import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import BundleError, EdvitError, UsageError
from edvit_tf.fleet.state import default_folder, load, save
from tests.fleet.fakes import fleet_of


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
    assert len(list((state / "bundles").iterdir())) == 1
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


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "devices": 3}'])
def test_a_broken_file_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "fleet.json").write_text(text)
    with pytest.raises(UsageError, match="cannot be read") as caught:
        load(tmp_path)
    assert caught.value.code == "state.broken"


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
