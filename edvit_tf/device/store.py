"""What a device keeps on disk: blobs named by their SHA-256, and a small file that says which are installed.

Every file appears whole or not at all: it is written under a temporary name, synced, renamed, and the folder
synced. So after a power cut either the old or the new state starts. A blob that is still on its way in keeps
its temporary file, so that it can go on where it was broken off.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from edvit_tf.device.files import Files, LocalFiles, OpenFile
from edvit_tf.errors import DeviceError

_TEMPORARY = ".part"
_SCRATCH = "scratch"
# A file system needs some for itself: names, and the small file that says what is installed.
SPARE_BYTES = 64 << 10


class Store:
    """A device's folder, held by one process at a time.

    Made with `Store(path)`; raises DeviceError when the folder cannot be made or another process holds it.
    """

    def __init__(self, path: Path, files: Files | None = None) -> None:
        self.path = path
        self._files = files or LocalFiles()
        self._blobs = path / "blobs"
        with _clear_errors(path):
            self._make(self._blobs)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise DeviceError(
                f"another device runs on the store {path}: give this one a --store of its own",
                code="device.store_in_use",
            ) from error
        for left_over in (*path.glob(f"*{_TEMPORARY}"), *path.glob(f"{_SCRATCH}/blobs/*")):
            self._files.remove(left_over)

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
        target = self.path / name
        temporary = target.with_name(f"{name}.{secrets.token_hex(4)}{_TEMPORARY}")
        with _clear_errors(self.path):
            try:
                with contextlib.closing(self._files.append(temporary)) as file:
                    file.write(data)
                    file.sync()
                self._files.rename(temporary, target)
                self._files.sync_folder(self.path)
            except OSError:
                self._files.remove(temporary)
                raise

    def blob(self, sha256: str) -> Path:
        """Where the blob with this hash is, or would be."""
        return self._blobs / sha256

    def add(self, data: bytes) -> str:
        """Keep a small blob and return its SHA-256."""
        sha256 = hashlib.sha256(data).hexdigest()
        if not self.intact(sha256):
            with self.receive(len(data), sha256) as incoming:
                incoming.write(data)
                incoming.keep()
        return sha256

    def received(self, size: int, sha256: str) -> int:
        """How many of the blob's `size` bytes are here already, perhaps all."""
        if self.intact(sha256):
            return size
        try:
            there = self._part(sha256).stat().st_size
        except OSError:
            return 0
        return there if there <= size else 0

    def receive(self, size: int, sha256: str, *, after: int = 0) -> "Incoming":
        """Take a blob of `size` bytes piece by piece, the first of which follows the `after` that are here.

        Raises:
            DeviceError: the disk has no room for it (`device.disk_full`), or cannot be used.
        """
        with _clear_errors(self.path):
            if self._files.free_bytes(self.path) < size - after + SPARE_BYTES:
                raise DeviceError(
                    f"the disk of the store {self.path} is full: {size - after} bytes are to come and "
                    f"{self._files.free_bytes(self.path)} are free",
                    code="device.disk_full",
                )
            return Incoming(self._files, self._part(sha256), self.blob(sha256), size, after)

    def intact(self, sha256: str) -> bool:
        """Whether the blob is there and still is what its name says."""
        try:
            with self.blob(sha256).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except OSError:
            return False

    def keep_only(self, hashes: set[str]) -> None:
        """Delete every other blob, and all that are still on their way in."""
        with _clear_errors(self.path):
            for blob in sorted(self._blobs.iterdir()):
                if blob.name not in hashes:
                    self._files.remove(blob)

    @contextlib.contextmanager
    def scratch(self) -> Iterator["Store"]:
        """A store of its own for blobs that nobody keeps; it is empty again at the end."""
        with contextlib.closing(Store(self.path / _SCRATCH, self._files)) as made:
            made.keep_only(set())
            try:
                yield made
            finally:
                made.keep_only(set())

    def _part(self, sha256: str) -> Path:
        return self._blobs / f"{sha256}{_TEMPORARY}"

    def _make(self, folder: Path) -> None:
        """Make a folder and its parents so that a power cut takes none of them away again."""
        if folder.is_dir():
            return
        self._make(folder.parent)
        self._files.make_folder(folder)
        self._files.sync_folder(folder.parent)


class Incoming:
    """A blob on its way in; every method may raise DeviceError, a full disk among the reasons.

    A context: what is not kept by its end stays as far as it came, unless the bytes or the disk were wrong.
    `missing` counts the bytes that are still to come.
    """

    def __init__(self, files: Files, part: Path, target: Path, size: int, after: int) -> None:
        self._files = files
        self._part = part
        self._target = target
        self._file: OpenFile | None = None
        self._digest = hashlib.sha256()
        self.missing = size - after
        if after:
            with part.open("rb") as there:
                while piece := there.read(1 << 20):
                    self._digest.update(piece)
        else:
            files.remove(part)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def write(self, data: bytes) -> None:
        """Append; more than was announced is refused."""
        if len(data) > self.missing:
            self._discard()
            raise DeviceError("more bytes came than the manifest announces", code="device.size")
        with self._careful():
            self._file = self._file or self._files.append(self._part)
            self._file.write(data)
        self._digest.update(data)
        self.missing -= len(data)

    def keep(self) -> None:
        """Put the blob in its place, if it is the one that was named."""
        if self.missing:
            raise DeviceError(f"{self.missing} bytes are missing", code="device.size")
        if self._digest.hexdigest() != self._target.name:
            self._discard()
            raise DeviceError("the bytes that came do not have the manifest's SHA-256", code="device.hash")
        with self._careful():
            self._file = self._file or self._files.append(self._part)
            self._file.sync()
            self._close()
            self._files.rename(self._part, self._target)
            self._files.sync_folder(self._target.parent)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _discard(self) -> None:
        self._close()
        self._files.remove(self._part)

    @contextlib.contextmanager
    def _careful(self) -> Iterator[None]:
        with _clear_errors(self._target.parent.parent):
            try:
                yield
            except OSError:
                self._discard()
                raise


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
