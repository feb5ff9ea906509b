"""A folder that appears whole or not at all, at whatever moment the work or the machine ends."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edvit_tf.errors import UsageError

_SUFFIX = ".part"


@contextmanager
def draft(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that becomes it when the block ends, and vanishes when it fails.

    Everything in it is on the disk before it gets its name. Its maker holds a lock on it, which ends with the
    process: so the next one for the same target removes what a killed one left, and only that.

    Raises:
        FileExistsError: something stands at `target`, before the block or after it.
        UsageError: nothing can be written there.
    """
    _check_free(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_left_over(target.parent, target.name)
        folder, lock = _locked(target)
    except OSError as error:
        raise UsageError(
            f"Nothing can be written to {target.parent} ({error.strerror}): choose another folder."
        ) from None
    try:
        yield folder
        for path in (*folder.rglob("*"), folder):
            sync(path)
        _check_free(target)  # rename would replace an empty folder
        try:
            folder.rename(target)
        except OSError:  # something came to stand there between the two lines
            _check_free(target)
            raise
        sync(target.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def remove_left_over(parent: Path, name: str = "*") -> None:
    """Remove the drafts for `name` in `parent` whose makers are gone."""
    for folder in parent.glob(f".{name}.*{_SUFFIX}"):
        with contextlib.suppress(OSError):  # its maker lives, or has just ended it
            lock = _lock(folder, wait=False)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def sync(path: Path) -> None:
    """Have the disk keep what was written: a renamed file whose bytes never arrived is worse than none."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _locked(target: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_SUFFIX, dir=target.parent))
        lock = _lock(folder, wait=True)
        if folder.exists():  # between the two lines above it looked like left over
            folder.chmod(0o755)  # mkdtemp lets nobody else read it
            return folder, lock
        os.close(lock)


def _lock(folder: Path, *, wait: bool) -> int:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(handle)
        raise
    return handle


def _check_free(target: Path) -> None:
    if os.path.lexists(target):
        raise FileExistsError(f"{target} exists already")
