"""What a device keeps on disk: blobs named by their SHA-256, and a small file that says which are installed.

Every file appears whole or not at all: it is written under a temporary name, synced, renamed, and the folder
synced. So after a power cut either the old or the new state starts.
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from edvit_tf.errors import DeviceError

_TEMPORARY = ".part"


class Store:
    """A device's folder, held by one process at a time.

    Made with `Store(path)`; raises DeviceError when the folder cannot be made or another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._blobs = path / "blobs"
        with _clear_errors(path):
            self._blobs.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise DeviceError(
                f"another device runs on the store {path}: give this one a --store of its own",
                code="device.store_in_use",
            ) from error
        for left_over in [*path.glob(f"*{_TEMPORARY}"), *self._blobs.glob(f"*{_TEMPORARY}")]:
            left_over.unlink()

    def close(self) -> None:
        """Let another process have the folder."""
        os.close(self._lock)

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a small file, None when there is none."""
        with _clear_errors(self.path):
            try:
                return (self.path / name).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Write a small file (mode 0600), whole or not at all."""
        with _clear_errors(self.path), _Draft(self.path / name) as draft:
            draft.write(data)
            draft.keep()

    def blob(self, sha256: str) -> Path:
        """Where the blob with this hash is, or would be."""
        return self._blobs / sha256

    def add(self, data: bytes) -> str:
        """Keep a small blob and return its SHA-256."""
        sha256 = hashlib.sha256(data).hexdigest()
        with self.receive(len(data), sha256) as incoming:
            incoming.write(data)
            incoming.keep()
        return sha256

    def receive(self, size: int, sha256: str) -> "Incoming":
        """Take a blob of `size` bytes piece by piece, in a context that leaves nothing unless it was kept."""
        return Incoming(self.path, self.blob(sha256), size)

    def intact(self, sha256: str) -> bool:
        """Whether the blob is there and still is what its name says."""
        try:
            with self.blob(sha256).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except OSError:
            return False

    def keep_only(self, hashes: set[str]) -> None:
        """Delete every other blob."""
        for blob in self._blobs.iterdir():
            if blob.name not in hashes:
                blob.unlink(missing_ok=True)


class Incoming:
    """A blob on its way in; every method may raise DeviceError, a full disk among the reasons."""

    def __init__(self, store: Path, target: Path, size: int) -> None:
        self._store = store
        self._sha256 = target.name
        self._digest = hashlib.sha256()
        self.missing = size
        with _clear_errors(store):
            self._draft = _Draft(target)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._draft.discard()

    def write(self, data: bytes) -> None:
        """Append; more than was announced is refused."""
        if len(data) > self.missing:
            raise DeviceError("more bytes came than the manifest announces", code="device.size")
        with _clear_errors(self._store):
            self._draft.write(data)
        self._digest.update(data)
        self.missing -= len(data)

    def keep(self) -> None:
        """Put the blob in its place, if it is the one that was named."""
        if self.missing:
            raise DeviceError(f"{self.missing} bytes are missing", code="device.size")
        if self._digest.hexdigest() != self._sha256:
            raise DeviceError("the bytes that came do not have the manifest's SHA-256", code="device.hash")
        with _clear_errors(self._store):
            self._draft.keep()


class _Draft:
    """A file under a temporary name until it is kept."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._temporary = target.with_name(f"{target.name}.{secrets.token_hex(4)}{_TEMPORARY}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = io.FileIO(os.open(self._temporary, flags, 0o600), "wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def keep(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.rename(self._target)
        _sync_folder(self._target.parent)

    def discard(self) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DeviceError(f"the disk of the store {path} is full", code="device.disk_full") from error
        raise DeviceError(
            f"cannot use the store {path}: {error.strerror or error}", code="device.store"
        ) from error
