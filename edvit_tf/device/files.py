"""Everything that a store changes on its disk, one small operation at a time.

Reading needs no interface: it leaves nothing behind. Tests put in place of `LocalFiles` a disk that is full,
that loses its power, or whose process is killed, at any one of these operations.
"""

import io
import os
import shutil
from pathlib import Path
from typing import Protocol


class OpenFile(Protocol):
    """A file that grows; every method may raise OSError."""

    def write(self, data: bytes) -> None:
        """Append all of the data."""
        ...

    def sync(self) -> None:
        """Return when the file's bytes survive a power cut."""
        ...

    def close(self) -> None:
        """Let go of it; a second time does nothing."""
        ...


class Files(Protocol):
    """What may be done to a folder; every method may raise OSError.

    A new, renamed or removed name survives a power cut only after `sync_folder`, whatever was synced of the
    file itself.
    """

    def make_folder(self, path: Path) -> None:
        """Make one folder whose parent is there."""
        ...

    def append(self, path: Path) -> OpenFile:
        """Open a file at its end; make it (mode 0600) when there is none."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Put a file in the place of another, which may be there."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file; one that is not there is no error."""
        ...

    def sync_folder(self, path: Path) -> None:
        """Return when the names in the folder survive a power cut."""
        ...

    def free_bytes(self, path: Path) -> int:
        """Bytes that this process may still write there."""
        ...


class LocalFiles:
    """The disk of this machine."""

    def make_folder(self, path: Path) -> None:
        """Make one folder."""
        path.mkdir(exist_ok=True)

    def append(self, path: Path) -> "LocalFile":
        """Open a file at its end."""
        return LocalFile(path)

    def rename(self, source: Path, target: Path) -> None:
        """Put a file in the place of another."""
        source.rename(target)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        path.unlink(missing_ok=True)

    def sync_folder(self, path: Path) -> None:
        """Sync the names in a folder."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free_bytes(self, path: Path) -> int:
        """Bytes that may still be written."""
        return shutil.disk_usage(path).free


class LocalFile:
    """A file on the disk of this machine, open at its end."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = io.FileIO(os.open(path, flags, 0o600), "ab")

    def write(self, data: bytes) -> None:
        """Append all of the data."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def sync(self) -> None:
        """Sync the bytes."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
