"""What a fleet remembers: who belongs to it, what is deployed, who has what, and what happened.

One SQLite file, `fleet.db`, in the fleet's folder, with a write-ahead log: a running aggregator and the verbs
read and write it at the same time, and a crash leaves either the old or the new. The copy of the deployed
bundle lies beside it under its manifest's hash, and is complete before the file names it.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from edvit_tf.bundle.reader import Bundle, open_bundle
from edvit_tf.errors import EdvitError, UsageError
from edvit_tf.fleet.deploy import Deployment
from edvit_tf.fleet.discover import Announced

STATE_FILE = "fleet.db"
SCHEMA = 1
# Another process that writes is waited for.
BUSY_SECONDS = 10.0
MOST_EVENTS = 10_000

_TABLES = """
CREATE TABLE device (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    address TEXT NOT NULL,
    drained INTEGER NOT NULL DEFAULT 0,
    removed INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    since REAL NOT NULL DEFAULT 0,
    hello BLOB NOT NULL DEFAULT x''
);
CREATE TABLE deployment (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    bundle TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL
);
CREATE TABLE placement (
    submodel TEXT PRIMARY KEY,
    home TEXT NOT NULL REFERENCES device (id),
    holder TEXT NOT NULL REFERENCES device (id)
);
CREATE TABLE serving (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    bundle TEXT NOT NULL,
    paused TEXT NOT NULL
);
CREATE TABLE event (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    device TEXT NOT NULL,
    text TEXT NOT NULL
);
"""

# Not in the schema's first version: made in files of that version too.
_SENT = """
CREATE TABLE IF NOT EXISTS sent (
    device TEXT PRIMARY KEY,
    codec TEXT NOT NULL,
    bytes INTEGER NOT NULL
)
"""


def default_folder() -> Path:
    """Return the folder for the user's data."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "edvit-tf" / "fleet"


@dataclass(frozen=True, slots=True)
class Known:
    """A device of the fleet as the aggregator last knew it; `since` is in seconds of the wall clock.

    `hello` are the bytes of the last `HelloReply`, empty when it has not answered yet. `codec` is the one in
    which it was last sent a picture, `sent_bytes` what it was sent since the aggregator started.
    """

    id: str
    name: str
    address: str
    drained: bool
    state: str
    reason: str
    since: float
    hello: bytes
    codec: str = ""
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: at a time (seconds of the wall clock), to a device (its id, or empty)."""

    number: int
    at: float
    device: str
    text: str


class FleetState:
    """An open `fleet.db`; every method is one transaction, and may be called from any thread.

    Raises (all methods):
        UsageError: `state.broken`: the file is no such database, or a newer version wrote it.
        EdvitError: `state.write`: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        with self._clear_errors():
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                folder / STATE_FILE, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException:
                self._database.close()
                raise

    def _prepare(self) -> None:
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")  # `_writing` says when less will do
        self._database.execute("PRAGMA foreign_keys = ON")
        self._database.execute("BEGIN IMMEDIATE")
        (schema,) = self._database.execute("PRAGMA user_version").fetchone()
        if schema == 0:
            for statement in _TABLES.split(";"):
                self._database.execute(statement)
            self._database.execute(f"PRAGMA user_version = {SCHEMA}")
        elif schema != SCHEMA:
            raise UsageError(
                f"{self.folder / STATE_FILE} was written by another version of edvit-tf: use that one, or "
                "name another --state",
                code="state.broken",
            )
        self._database.execute(_SENT)
        self._database.execute("COMMIT")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    def changes(self) -> int:
        """A number that is another one after any other process has written."""
        with self._reading() as database:
            (number,) = database.execute("PRAGMA data_version").fetchone()
        return int(number)

    def deployed(self) -> tuple[Bundle, Deployment]:
        """What is deployed, and who has it; the devices are all that belong to the fleet.

        Raises:
            UsageError: `state.missing`: nothing is deployed from here.
            BundleError: the copy of the bundle has been changed.
        """
        with self._reading() as database:
            row = database.execute("SELECT bundle FROM deployment").fetchone()
            rows = database.execute("SELECT submodel, home, holder FROM placement").fetchall()
        if row is None:
            raise _nothing(self.folder)
        known = self.devices()
        deployment = Deployment(
            assignment={submodel: home for submodel, home, _ in rows},
            devices=tuple(Announced(device.address, device.id, device.name) for device in known),
            moved={submodel: holder for submodel, home, holder in rows if holder != home},
            drained=frozenset(device.id for device in known if device.drained),
        )
        return open_bundle(self.folder / row[0]), deployment

    def deploy(self, bundle: Bundle, deployment: Deployment) -> None:
        """Keep a copy of the bundle and who has what; devices that are no part of it stay in the fleet.

        The copy of the bundle that was deployed before stays too, and older ones go.
        """
        with self._clear_errors():
            path = _keep(self.folder, bundle)
        with self._writing() as database:
            before = database.execute("SELECT bundle FROM deployment").fetchone()
            for device in deployment.devices:
                _enrol(database, device)
            database.execute("DELETE FROM placement")
            database.executemany(
                "INSERT INTO placement VALUES (?, ?, ?)",
                [
                    (submodel, home, deployment.moved.get(submodel, home))
                    for submodel, home in deployment.assignment.items()
                ],
            )
            manifest = bundle.manifest
            database.execute(
                "INSERT OR REPLACE INTO deployment VALUES (1, ?, ?, ?)",
                (path, manifest.name, manifest.version),
            )
            _note(database, "", f"{manifest.name} version {manifest.version} is deployed")
        kept = {path, before[0] if before else path}
        with self._clear_errors():
            for other in (self.folder / "bundles").iterdir():
                if f"bundles/{other.name}" not in kept:
                    shutil.rmtree(other, ignore_errors=True)

    def devices(self) -> list[Known]:
        """The devices of the fleet, by name."""
        with self._reading() as database:
            rows = database.execute(
                "SELECT id, name, address, drained, state, reason, since, hello, "
                "coalesce(codec, ''), coalesce(bytes, 0) FROM device LEFT JOIN sent ON id = device "
                "WHERE NOT removed ORDER BY name, id"
            ).fetchall()
        return [
            Known(id, name, address, bool(drained), *rest)
            for id, name, address, drained, *rest in rows  # noqa: A001
        ]

    def removed(self) -> frozenset[str]:
        """The ids of devices that were thrown out."""
        with self._reading() as database:
            return frozenset(row[0] for row in database.execute("SELECT id FROM device WHERE removed"))

    def enrol(self, device: Announced) -> None:
        """Take a device into the fleet, also one that was thrown out once."""
        with self._writing() as database:
            _enrol(database, device)
            database.execute("UPDATE device SET removed = 0, drained = 0 WHERE id = ?", (device.id,))
            _note(database, device.id, "is a member of the fleet")

    def seen(self, known: Known, event: str = "") -> None:
        """Write down where a device stands, and what happened to it."""
        with self._writing(lasting=False) as database:
            database.execute(
                "UPDATE device SET name = ?, address = ?, state = ?, reason = ?, since = ?, hello = ? "
                "WHERE id = ?",
                (known.name, known.address, known.state, known.reason, known.since, known.hello, known.id),
            )
            if event:
                _note(database, known.id, event)

    def sent(self, device: str, codec: str, size: int) -> None:
        """Write down in which codec a device is sent pictures, and how many bytes it was sent."""
        with self._writing(lasting=False) as database:
            database.execute("INSERT OR REPLACE INTO sent VALUES (?, ?, ?)", (device, codec, size))

    def drain(self, device: str, *, drained: bool) -> None:
        """Have a device hold nothing, or let it hold something again."""
        with self._writing() as database:
            database.execute("UPDATE device SET drained = ? WHERE id = ?", (drained, device))
            _note(database, device, "is to be drained" if drained else "may hold sub-models again")

    def remove(self, device: str) -> None:
        """Throw a device out; what was meant for it is meant for whoever holds it now."""
        with self._writing() as database:
            database.execute("UPDATE placement SET home = holder WHERE home = ?", (device,))
            database.execute("UPDATE device SET removed = 1 WHERE id = ?", (device,))
            _note(database, device, "was removed from the fleet")

    def move(self, submodel: str, holder: str, event: str) -> None:
        """Write down who holds a sub-model from now on, and why."""
        with self._writing() as database:
            database.execute("UPDATE placement SET holder = ? WHERE submodel = ?", (holder, submodel))
            _note(database, holder, event)

    def serving(self) -> tuple[str, str]:
        """Which bundle (its path below the folder) a running aggregator serves, and why nothing is moved."""
        with self._reading() as database:
            row = database.execute("SELECT bundle, paused FROM serving").fetchone()
        return (str(row[0]), str(row[1])) if row else ("", "")

    def behind(self) -> bool:
        """Whether the aggregator that runs, or has run, serves something else than what is deployed."""
        with self._reading() as database:
            row = database.execute(
                "SELECT deployment.bundle <> serving.bundle FROM deployment, serving"
            ).fetchone()
        return bool(row and row[0])

    def serve(self, bundle: Bundle, paused: str = "") -> None:
        """Write down what `serving` says."""
        path = f"bundles/{bundle.path.name}"
        if self.serving() == (path, paused):
            return
        with self._writing(lasting=False) as database:
            database.execute("INSERT OR REPLACE INTO serving VALUES (1, ?, ?)", (path, paused))

    def note(self, text: str, device: str = "") -> None:
        """Write down something that happened."""
        with self._writing(lasting=False) as database:
            _note(database, device, text)

    def events(self, *, after: int = 0, last: int = MOST_EVENTS) -> list[Event]:
        """The last events with a number above `after`, oldest first."""
        with self._reading() as database:
            rows = database.execute(
                "SELECT number, at, device, text FROM event WHERE number > ? ORDER BY number DESC LIMIT ?",
                (after, last),
            ).fetchall()
        return [Event(*row) for row in reversed(rows)]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._clear_errors():
            yield self._database

    @contextlib.contextmanager
    def _writing(self, *, lasting: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction; what is not `lasting` may be lost in a power cut, and does not wait for the disk."""
        with self._lock, self._clear_errors():
            self._database.execute(f"PRAGMA synchronous = {'FULL' if lasting else 'NORMAL'}")
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.OperationalError) as error:
            reason = getattr(error, "strerror", None) or error
            raise EdvitError(
                f"cannot keep the fleet's state in {self.folder} ({reason}): choose another --state",
                code="state.write",
            ) from error
        except sqlite3.DatabaseError as error:
            raise UsageError(
                f"{self.folder / STATE_FILE} cannot be read ({error}): delete it, and run "
                "`edvit-tf fleet deploy BUNDLE` again",
                code="state.broken",
            ) from error


def open_state(folder: Path) -> FleetState:
    """Open the state that is in a folder.

    Raises:
        UsageError: `state.missing`: there is none; `state.broken`: it cannot be read.
    """
    if not (folder / STATE_FILE).exists():
        raise _nothing(folder)
    return FleetState(folder)


def load(folder: Path) -> tuple[Bundle, Deployment]:
    """What is deployed from a folder, and who has it.

    Raises:
        UsageError: `state.missing`: nothing was deployed from there; `state.broken`: it cannot be read.
        BundleError: the copy of the bundle has been changed.
    """
    with open_state(folder) as state:
        return state.deployed()


def save(folder: Path, bundle: Bundle, deployment: Deployment) -> None:
    """Keep a deployment in a folder; raises what `FleetState` does."""
    with FleetState(folder) as state:
        state.deploy(bundle, deployment)


def _nothing(folder: Path) -> UsageError:
    return UsageError(
        f"nothing is deployed from {folder}: run `edvit-tf fleet deploy BUNDLE`, or name another --state",
        code="state.missing",
    )


def _enrol(database: sqlite3.Connection, device: Announced) -> None:
    database.execute(
        "INSERT INTO device (id, name, address) VALUES (?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET name = excluded.name, address = excluded.address",
        (device.id, device.name, device.address),
    )


def _note(database: sqlite3.Connection, device: str, text: str) -> None:
    database.execute("INSERT INTO event (at, device, text) VALUES (?, ?, ?)", (time.time(), device, text))
    database.execute("DELETE FROM event WHERE number <= (SELECT max(number) FROM event) - ?", (MOST_EVENTS,))


def _keep(folder: Path, bundle: Bundle) -> str:
    """Copy a bundle below the folder, whole or not at all; where it is, from there."""
    bundles = folder / "bundles"
    bundles.mkdir(parents=True, exist_ok=True)
    if bundle.path.resolve().parent == bundles.resolve():
        # Signed here, perhaps with a decision to go back that another copy lacks.
        return f"bundles/{bundle.path.name}"
    name = hashlib.sha256(bundle.manifest_bytes).hexdigest()[:16]
    target = bundles / name
    if not target.exists():
        temporary = target.with_name(f"{name}.{secrets.token_hex(4)}.part")
        try:
            shutil.copytree(bundle.path, temporary)
            for path in temporary.rglob("*"):
                _sync(path)
            temporary.rename(target)
            _sync(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return f"bundles/{name}"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
