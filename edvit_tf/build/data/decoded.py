"""Pictures that were decoded once, as one file each split in the user's cache, mapped for reading.

An entry's name is a hash of what it was made from, so a changed file makes another entry. Decoded pictures go
straight to the disk: memory never holds more than a few of them. The cache is bounded: what was not used for
the longest time goes first. The folder can be deleted whenever nothing runs.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.data.dataset import Skipped, Split
from edvit_tf.build.data.places import cache_folder
from edvit_tf.errors import DataError

Piece = NDArray[np.uint8] | Skipped
LARGEST_CACHE = 16 * 2**30
LARGEST_SKIPPED = 0.05  # share of the files; a single one is always let pass
_VERSION = 1  # of how pictures are prepared
_IMAGES, _ENTRY = "images.bin", "entry.json"

log = logging.getLogger(__name__)


def decoded(
    key: tuple[object, ...], labels: NDArray[np.int64], produce: Callable[[], Iterator[Piece]]
) -> tuple[Split, tuple[Skipped, ...]]:
    """The pictures of a split, from the cache or, the first time, from `produce`.

    Args:
        key: all that decides how the pictures come out.
        labels: int64 [n], of every picture, those included that will turn out not to be readable.
        produce: gives the n pictures in their order, all of one shape; `Skipped` for one that cannot be read.

    Raises:
        DataError: too many cannot be read, a class has none that can, or the cache cannot be written.
    """
    name = hashlib.sha256(repr((_VERSION, *key)).encode()).hexdigest()[:32]
    place = cache_folder("pictures") / name
    try:
        entry = _open(place)
        if entry is None:
            _write(place, labels, produce)
            _bound(place.parent, keep=place)
            entry = _open(place)
    except OSError as error:
        raise DataError(
            f"decoded pictures cannot be kept in {place.parent} ({error.strerror or error}): "
            "set XDG_CACHE_HOME to a folder with room",
            code="data.cache",
        ) from error
    if entry is None:
        raise DataError(f"decoded pictures vanished from {place}: try again", code="data.cache")
    images, rows, skipped = entry
    for item in skipped:
        log.warning("skipped %s: %s", item.file, item.reason)
    return Split(images, labels[rows]), skipped


def _open(place: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[Skipped, ...]] | None:
    """An entry, or None when there is none that is whole."""
    try:
        entry = json.loads((place / _ENTRY).read_text())
        shape = tuple(entry["shape"])
        if (place / _IMAGES).stat().st_size != int(np.prod(shape)):
            return None
        os.utime(place)
    except (FileNotFoundError, ValueError):
        return None
    images = np.asarray(np.memmap(place / _IMAGES, np.uint8, "r", shape=shape))
    gone = [item["row"] for item in entry["skipped"]]
    rows = np.setdiff1d(np.arange(shape[0] + len(gone)), gone).astype(np.int64)
    # A file that would have given several pictures is named once.
    skipped = dict.fromkeys(Skipped(item["file"], item["reason"]) for item in entry["skipped"])
    return images, rows, tuple(skipped)


def _write(place: Path, labels: NDArray[np.int64], produce: Callable[[], Iterator[Piece]]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=place.parent) as temporary:
        folder = Path(temporary) / place.name
        folder.mkdir()
        shape: tuple[int, ...] = ()
        skipped: dict[int, Skipped] = {}
        with (folder / _IMAGES).open("wb") as file:
            for row, piece in enumerate(produce()):
                if isinstance(piece, Skipped):
                    skipped[row] = piece
                else:
                    shape = piece.shape
                    file.write(piece.tobytes())
        _check(labels, skipped)
        entry = {
            "shape": [len(labels) - len(skipped), *shape],
            "skipped": [{"row": row, **asdict(item)} for row, item in skipped.items()],
        }
        (folder / _ENTRY).write_text(json.dumps(entry))
        shutil.rmtree(place, ignore_errors=True)  # an entry that was not whole
        try:
            folder.rename(place)
        except OSError:
            if not place.exists():  # another process was quicker, and its entry is as good
                raise


def _check(labels: NDArray[np.int64], skipped: dict[int, Skipped]) -> None:
    """Let a few unreadable files pass, unless they are all that a class has."""
    if not skipped:
        return
    left = np.delete(labels, list(skipped))
    first = next(iter(skipped.values()))
    many = len(set(skipped.values())) > 1 and len(skipped) > LARGEST_SKIPPED * len(labels)
    if many or len(np.unique(left)) < len(np.unique(labels)):
        raise DataError(
            f"{len(skipped)} of {len(labels)} files cannot be read, the first: {first.reason}",
            code="data.unreadable",
        )


def _bound(folder: Path, keep: Path) -> None:
    """Remove what was used longest ago until the rest fits; a mapped file lives on until it is let go."""
    entries = []
    for path in folder.glob("*/" + _IMAGES):
        try:
            entries.append((path.parent.stat().st_mtime, path.stat().st_size, path.parent))
        except FileNotFoundError:  # another process removed it
            continue
    total = sum(size for _, size, _ in entries)
    for _, size, place in sorted(entries):
        if total <= LARGEST_CACHE:
            break
        if place != keep:
            shutil.rmtree(place, ignore_errors=True)
            total -= size
