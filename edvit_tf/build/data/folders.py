"""Folders of class folders, with or without `train/`, `val/` and `test/` above them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edvit_tf.build.data.items import Items, PictureFiles
from edvit_tf.build.data.source import Source
from edvit_tf.errors import DataError

PICTURE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"))
_VALIDATION_FOLDERS = ("val", "validation", "valid")
_RESERVED = frozenset(("train", "test", *_VALIDATION_FOLDERS))


def folder_source(folder: Path, name: str, origin: str, *, mirrored: bool) -> Source:
    """A folder as a data set; parts that it does not have are held out."""
    train = folder / "train" if (folder / "train").is_dir() else folder
    given = next((folder / part for part in _VALIDATION_FOLDERS if (folder / part).is_dir()), None)
    test = folder / "test"
    return Source(
        name,
        origin,
        mirrored,
        train=lambda: listing(train),
        validation=None if given is None else lambda: listing(given),
        test=(lambda: listing(test)) if test.is_dir() else None,
    )


def listing(folder: Path) -> Items:
    """The files in the class folders of a folder, in the order of their names.

    Raises:
        DataError: fewer than two classes, or one of them is empty.
    """
    folders = class_folders(folder)
    if len(folders) < 2:
        raise DataError(
            f"{folder} has class folders for {len(folders)} of at least two classes: "
            "put the pictures of each class in a folder with the class's name"
        )
    return list_files(folders, tuple(entry.name for entry in folders))


def class_folders(folder: Path) -> list[Path]:
    """The folders in a folder that stand for a class, sorted."""
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith((".", "_")) and entry.name not in _RESERVED
    )


def list_files(folders: Sequence[Path], classes: tuple[str, ...]) -> Items:
    """The files in class folders; `classes` names them, in the same order.

    Raises:
        DataError: a folder has none.
    """
    paths: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
        if not found:
            raise DataError(f"{folder} has no pictures: fill it or remove it")
        paths += found
        labels += [label] * len(found)
    return PictureFiles(classes, tuple(paths), np.asarray(labels, np.int64))
