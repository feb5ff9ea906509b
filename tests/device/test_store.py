"""The store: whole or not at all, one process at a time."""

import hashlib
import os
import stat
from pathlib import Path

import pytest

from edvit_tf.device.identity import KEY_FILE, load_or_make
from edvit_tf.device.store import Store
from edvit_tf.errors import DeviceError

DATA = b"flatbuffer" * 100
SHA256 = hashlib.sha256(DATA).hexdigest()


def files(store: Store) -> set[str]:
    return {str(path.relative_to(store.path)) for path in store.path.rglob("*") if path.is_file()} - {"lock"}


def test_a_blob_comes_piece_by_piece(store: Store) -> None:
    with store.receive(len(DATA), SHA256) as incoming:
        incoming.write(DATA[:300])
        assert incoming.missing == 700
        incoming.write(DATA[300:])
        assert not store.intact(SHA256)
        incoming.keep()
    assert store.intact(SHA256)
    assert store.blob(SHA256).read_bytes() == DATA
    assert files(store) == {f"blobs/{SHA256}"}


@pytest.mark.parametrize(("data", "code"), [(DATA + b"x", "device.size"), (b"x" * 1000, "device.hash")])
def test_what_is_not_what_was_announced_leaves_nothing(store: Store, data: bytes, code: str) -> None:
    def receive() -> None:
        with store.receive(len(DATA), SHA256) as incoming:
            incoming.write(data)
            incoming.keep()

    with pytest.raises(DeviceError) as caught:
        receive()
    assert caught.value.code == code
    assert files(store) == set()


def test_what_was_broken_off_goes_on_where_it_stopped(store: Store) -> None:
    with store.receive(len(DATA), SHA256) as incoming:
        incoming.write(DATA[:400])
    assert files(store) == {f"blobs/{SHA256}.part"}
    store.close()
    again = Store(store.path)
    assert again.received(len(DATA), SHA256) == 400
    with again.receive(len(DATA), SHA256, after=400) as incoming:
        incoming.write(DATA[400:])
        incoming.keep()
    assert again.received(len(DATA), SHA256) == len(DATA)
    assert files(again) == {f"blobs/{SHA256}"}
    store._lock = again._lock  # for the fixture to close


def test_a_beginning_that_was_damaged_is_thrown_away(store: Store) -> None:
    with store.receive(len(DATA), SHA256) as incoming:
        incoming.write(b"x" * 400)
    with store.receive(len(DATA), SHA256, after=400) as incoming:
        incoming.write(DATA[400:])
        with pytest.raises(DeviceError, match="SHA-256"):
            incoming.keep()
    assert files(store) == set()
    assert store.received(len(DATA), SHA256) == 0


def test_a_full_disk_is_a_refusal_that_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("installed.json", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DeviceError, match="is full") as caught:
        store.write("installed.json", b"new")
    assert caught.value.code == "device.disk_full"
    with pytest.raises(DeviceError, match="is full"):
        store.add(DATA)
    assert files(store) == {"installed.json"}
    assert store.read("installed.json") == b"old"


def test_a_changed_blob_is_noticed(store: Store) -> None:
    sha256 = store.add(DATA)
    assert sha256 == SHA256
    store.blob(sha256).write_bytes(DATA[:-1] + b"y")
    assert not store.intact(sha256)
    assert not store.intact("0" * 64)


def test_only_what_is_needed_is_kept(store: Store) -> None:
    kept, gone = store.add(b"kept"), store.add(b"gone")
    store.keep_only({kept})
    assert store.intact(kept)
    assert not store.blob(gone).exists()


def test_what_a_power_cut_left_is_cleared_away(tmp_path: Path) -> None:
    Store(tmp_path).close()
    for left_over in (tmp_path / "installed.json.0abc.part", tmp_path / "blobs" / "f00.part"):
        left_over.write_bytes(b"half")
    store = Store(tmp_path)
    assert files(store) == {"blobs/f00.part"}
    store.keep_only(set())
    assert files(store) == set()
    store.close()


def test_one_process_at_a_time(store: Store) -> None:
    with pytest.raises(DeviceError, match="--store of its own") as caught:
        Store(store.path)
    assert caught.value.code == "device.store_in_use"
    store.close()
    second = Store(store.path)
    second.close()
    store._lock = os.open(store.path / "lock", os.O_RDONLY)  # for the fixture to close


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="cannot use the store"):
        Store(tmp_path / "file" / "store")


def test_the_key_is_made_once_and_is_private(store: Store) -> None:
    identity = load_or_make(store)
    assert len(identity.id) == 64
    assert int(identity.id, 16) >= 0
    assert stat.S_IMODE((store.path / KEY_FILE).stat().st_mode) == 0o600
    assert load_or_make(store).id == identity.id


def test_the_id_is_the_hash_of_the_public_key(store: Store) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    identity = load_or_make(store)
    der = identity.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert identity.id == hashlib.sha256(der).hexdigest()
    assert isinstance(identity.key.curve, SECP256R1)


def test_a_broken_key_is_not_silently_replaced(store: Store) -> None:
    store.write(KEY_FILE, b"-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n")
    with pytest.raises(DeviceError, match="holds no private key"):
        load_or_make(store)
    store.write(KEY_FILE, _ed25519())
    with pytest.raises(DeviceError, match="not P-256"):
        load_or_make(store)


def _ed25519() -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
