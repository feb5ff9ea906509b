"""Where the results of an export's stages lie, each under the hash of what made it.

A `Recipe` says all that a result depends on, so its hash is known before anything is made: what is in the
store already is taken from there. Results are folders of arrays, JSON and files, written whole or not at all,
so an export that was killed goes on where it was.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edvit_tf.bundle.draft import draft, remove_left_over
from edvit_tf.errors import TrainingError, UsageError

DEFAULT_NAME = "edvit-cache"
VARIABLE = "EDVIT_CACHE"
DEFAULT_LIMIT = 20_000_000_000
_TAG = "CACHEDIR.TAG"
# The first line is what backup programs look for: https://bford.info/cachedir/
_TAG_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# Results of the stages of edvit-tf export.\n"
_RESULT = "result.json"


@dataclass(frozen=True)
class Recipe:
    """All that one result is made from, as JSON values; other results by their keys."""

    stage: str
    made_from: Mapping[str, object]

    @cached_property
    def key(self) -> str:
        """The name of the result: the stage and a hash."""
        text = json.dumps(self.made_from, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return f"{self.stage}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class Result:
    """A stored result, or one that is being written: a folder of arrays, facts (JSON) and files."""

    folder: Path

    def path(self, name: str) -> Path:
        """Where a file of it is."""
        return self.folder / name

    # Only its writer knows the type of an array.
    def array(self, name: str) -> NDArray:  # type: ignore[type-arg]
        """An array, mapped for reading."""
        array: NDArray = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)  # type: ignore[type-arg]
        return array

    def write_array(self, name: str, array: NDArray[np.generic]) -> None:
        """Keep an array."""
        np.save(self.folder / f"{name}.npy", array, allow_pickle=False)

    @property
    def facts(self) -> Any:
        """What `write_facts` kept."""
        return json.loads((self.folder / "facts.json").read_text("utf-8"))

    def write_facts(self, facts: Mapping[str, object]) -> None:
        """Keep JSON values."""
        (self.folder / "facts.json").write_text(json.dumps(facts, indent=1), "utf-8")

    @property
    def seconds(self) -> float:
        """What making it took."""
        return float(json.loads((self.folder / _RESULT).read_text("utf-8"))["seconds"])


@dataclass(frozen=True, slots=True)
class Store:
    """Results by recipe, in a folder that several processes may use at once. See `open_store`."""

    folder: Path

    def find(self, recipe: Recipe) -> Result | None:
        """The result, if it is there."""
        folder = self.folder / recipe.key
        if not (folder / _RESULT).is_file():
            return None
        os.utime(folder)  # what was used last is removed last
        return Result(folder)

    def __contains__(self, recipe: Recipe) -> bool:
        return self.find(recipe) is not None

    def get(self, recipe: Recipe) -> Result:
        """A result that must be there by now.

        Raises:
            UsageError: somebody has removed it meanwhile.
        """
        found = self.find(recipe)
        if found is None:
            raise UsageError(
                f"{self.folder / recipe.key} has gone: run the same command again, it makes what is missing"
            )
        return found

    def make(self, recipe: Recipe, write: Callable[[Result], object]) -> Result:
        """The result: the stored one, or what `write` puts into an empty one.

        Of two processes that make the same at once the first one's counts: the same recipe makes the same.

        Raises:
            TrainingError: a training of this stage went wrong; the sentence names the stage.
        """
        found = self.find(recipe)
        if found is not None:
            return found
        target, started = self.folder / recipe.key, time.monotonic()
        with contextlib.suppress(FileExistsError), draft(target) as folder:
            try:
                write(Result(folder))
            except TrainingError as error:
                raise TrainingError(f"the stage {recipe.stage} stopped: {error.message}") from error
            seconds = round(time.monotonic() - started, 2)
            about = {"stage": recipe.stage, "made_from": recipe.made_from, "seconds": seconds}
            (folder / _RESULT).write_text(json.dumps(about, indent=1), "utf-8")
        self.unfinished(recipe).unlink(missing_ok=True)
        return self.get(recipe)

    def unfinished(self, recipe: Recipe) -> Path:
        """The file for the state of a long training that makes this result; it goes when the result comes."""
        return self.folder / f"{recipe.key}.unfinished"


def default_folder(beside: Path) -> Path:
    """The store that is used when none is named: `EDVIT_CACHE`, or one in the folder `beside`."""
    given = os.environ.get(VARIABLE)
    return Path(given).expanduser() if given else beside / DEFAULT_NAME


@contextmanager
def open_store(folder: Path, *, limit: int = DEFAULT_LIMIT) -> Iterator[Store]:
    """A store for one export: made if need be, cleared of what killed writers left.

    At the end, if no other export uses it, the results that were used longest ago are removed until it holds
    at most `limit` bytes.

    Raises:
        UsageError: it is a folder of something else, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not _is_store(folder):
            if any(folder.iterdir()):
                raise UsageError(
                    f"{folder} holds other things than an export's cache: choose another --cache"
                )
            (folder / ".gitignore").write_text("*\n")
            (folder / _TAG).write_text(_TAG_TEXT)
        users = os.open(folder / _TAG, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(
            f"The cache {folder} cannot be used ({error.strerror}): choose another --cache"
        ) from None
    try:
        fcntl.flock(users, fcntl.LOCK_SH)
        remove_left_over(folder)
        yield Store(folder)
        with contextlib.suppress(OSError):  # another export is at work here: it will do this when it ends
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            trim(folder, limit)
    finally:
        os.close(users)


@dataclass(frozen=True, slots=True)
class Stored:
    """What lies in a store: a result, or the state of a training that is not over; `used` in Unix seconds."""

    name: str
    bytes: int
    used: float

    @property
    def stage(self) -> str:
        """The stage that it is a result of."""
        return self.name.rpartition("-")[0]


def contents(folder: Path) -> list[Stored]:
    """All that lies in a store, the one that was used longest ago first.

    Raises:
        UsageError: there is no store.
    """
    if not _is_store(folder):
        raise UsageError(f"{folder} is no cache of an export: give the folder that export said it uses")
    found = [
        Stored(path.name, _bytes(path), path.stat().st_mtime)
        for path in folder.iterdir()
        if path.name not in (_TAG, ".gitignore")
    ]
    return sorted(found, key=lambda stored: (stored.used, stored.name))


def trim(folder: Path, limit: int) -> int:
    """Remove what was used longest ago until at most `limit` bytes are left; returns the bytes removed.

    Raises:
        UsageError: there is no store.
    """
    found = contents(folder)
    too_much = excess = sum(stored.bytes for stored in found) - limit
    for stored in found:
        if excess <= 0:
            break
        path = folder / stored.name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        excess -= stored.bytes
    return max(0, too_much - excess)


def _is_store(folder: Path) -> bool:
    try:
        return (folder / _TAG).read_text() == _TAG_TEXT
    except OSError:
        return False


def _bytes(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
