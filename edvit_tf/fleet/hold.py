"""One aggregator at a time: a lock on the fleet's folder that says which process holds it.

The kernel lets go of it when the process ends, however it ends.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from edvit_tf.errors import EdvitError, UsageError

LOCK_FILE = "aggregator.lock"


@dataclass(frozen=True, slots=True)
class Running:
    """An aggregator that runs: its process, and where it listens ("host:port").

    `http` and `grpc` are for pictures, `inward` is for devices that dial in; empty: nowhere.
    """

    process: int
    http: str
    grpc: str
    inward: str = ""


@contextlib.contextmanager
def hold(folder: Path) -> Iterator["Hold"]:
    """Be the fleet's only aggregator as long as the block lasts.

    Raises:
        UsageError: `state.held`: another process is; the sentence says which.
        EdvitError: `state.write`: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EdvitError(
            f"cannot write {folder / LOCK_FILE} ({error.strerror}): choose another --state",
            code="state.write",
        ) from error
    try:
        if not _taken(descriptor):
            raise _held(folder, _said(folder))
        holding = Hold(descriptor)
        holding.say(Running(os.getpid(), "", ""))
        yield holding
    finally:
        os.close(descriptor)


class Hold:
    """The lock, in which the process that holds it says where it listens."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def say(self, running: Running) -> None:
        """Let others know."""
        data = json.dumps(asdict(running)).encode()
        os.pwrite(self._descriptor, data, 0)
        os.ftruncate(self._descriptor, len(data))


def running(folder: Path) -> Running | None:
    """The aggregator that runs on this folder, None when there is none."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _said(folder) or Running(0, "", "")
    else:
        return None
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    """Whether the lock is ours now; `running` has it for a moment when it looks."""
    for pause in (0.05, 0.1, 0.2, 0.0):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(pause)
        else:
            return True
    return False


def _said(folder: Path) -> Running | None:
    try:
        document = json.loads((folder / LOCK_FILE).read_bytes())
        return Running(
            int(document["process"]),
            str(document["http"]),
            str(document["grpc"]),
            str(document.get("inward", "")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # it has just begun to hold it


def _held(folder: Path, other: Running | None) -> UsageError:
    who = f"process {other.process}" if other else "another process"
    return UsageError(
        f"{who} is this fleet's aggregator already: stop it, or name another --state than {folder}",
        code="state.held",
    )
