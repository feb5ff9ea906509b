"""Folders of class folders: with `train/`, `val/` and `test/` above them, with lists of files, or neither."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edvit_tf.build.data.items import Items, PictureFiles, SoundFiles
from edvit_tf.build.data.source import Source
from edvit_tf.bundle.picture import SUFFIXES as PICTURE_SUFFIXES
from edvit_tf.bundle.sound import SUFFIXES as SOUND_SUFFIXES
from edvit_tf.errors import DataError

VALIDATION_LIST, TESTING_LIST = "validation_list.txt", "testing_list.txt"
_SUFFIXES = (*PICTURE_SUFFIXES, *SOUND_SUFFIXES)
_VALIDATION_FOLDERS = ("val", "validation", "valid")
_RESERVED = frozenset(("train", "test", *_VALIDATION_FOLDERS))


def folder_source(folder: Path, name: str, origin: str, *, mirrored: bool) -> Source:
    """A folder as a data set; parts that it does not have are held out."""
    if (folder / TESTING_LIST).is_file() and (folder / VALIDATION_LIST).is_file():
        return listed_source(folder, name, origin)
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


def listed_source(folder: Path, name: str, origin: str, length: tuple[int, float] | None = None) -> Source:
    """Class folders of sound with two lists of files beside them, which are for validation and test.

    That is the layout of Speech Commands, where it keeps each speaker in one part (Warden, arXiv 1804.03209).
    """
    validation, test = (frozenset(_lines(folder / file)) for file in (VALIDATION_LIST, TESTING_LIST))
    whole = listing(folder, length)
    names = [f"{path.parent.name}/{path.name}" for path in whole.paths]
    part = np.array([2 if file in test else 1 if file in validation else 0 for file in names])

    def rows(number: int) -> Items:
        if len(np.unique(whole.labels[part == number])) < len(whole.classes):
            raise DataError(f"the lists of {folder} leave a class without files for one of the three parts")
        return whole.take(np.flatnonzero(part == number))

    return Source(name, origin, False, lambda: rows(0), lambda: rows(1), lambda: rows(2))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no list of files ({error})") from error


def listing(folder: Path, length: tuple[int, float] | None = None) -> PictureFiles | SoundFiles:
    """The files in the class folders of a folder, in the order of their names.

    Raises:
        DataError: fewer than two classes, or one of them is empty.
    """
    folders = class_folders(folder)
    if len(folders) < 2:
        raise DataError(
            f"{folder} has class folders for {len(folders)} of at least two classes: "
            "put the pictures or the sounds of each class in a folder with the class's name"
        )
    return list_files(folders, tuple(entry.name for entry in folders), length)


def class_folders(folder: Path) -> list[Path]:
    """The folders in a folder that stand for a class, sorted."""
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith((".", "_")) and entry.name not in _RESERVED
    )


def list_files(
    folders: Sequence[Path],
    classes: tuple[str, ...],
    length: tuple[int, float] | None = None,
    pieces: int = 1,
) -> PictureFiles | SoundFiles:
    """The pictures or the sounds in class folders.

    Args:
        folders: one for each class.
        classes: their names, in the same order.
        length: of sounds, as `SoundFiles` takes it.
        pieces: that a sound is cut into.

    Raises:
        DataError: a folder has none, or there are pictures and sounds.
    """
    paths: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
        if not found:
            raise DataError(f"{folder} has no pictures and no sounds: fill it or remove it")
        paths += found
        labels += [label] * len(found)
    sounds = sum(path.suffix.lower() in SOUND_SUFFIXES for path in paths)
    if sounds == 0:
        return PictureFiles(classes, tuple(paths), np.asarray(labels, np.int64))
    if sounds < len(paths):
        raise DataError(f"{folders[0].parent} has pictures and sounds: keep the one kind or the other")
    return SoundFiles(classes, tuple(paths), np.asarray(labels, np.int64), length, pieces)
