"""Caltech-256: pictures of 256 kinds of objects in class folders (Griffin et al. 2007)."""

import re

from edvit_tf.build.data.archives import Archive, unpacked
from edvit_tf.build.data.folders import class_folders, list_files
from edvit_tf.build.data.places import given_folder
from edvit_tf.build.data.source import Source
from edvit_tf.errors import DataError

ARCHIVE = Archive(  # the sum as torchvision publishes it
    "https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar",
    "md5",
    "67b4f42ca05d46448c6bb8ecd2220f6d",
)
FOLDER = "256_ObjectCategories"
_CLUTTER = "257.clutter"  # what is none of the 256


def open_source() -> Source:
    """Find Caltech-256: in `EDVIT_DATA`, unpacked or as an archive, or by download.

    It has no splits of its own, so that all three are drawn from the seed.

    Raises:
        DataError: it is not here and cannot be downloaded.
    """
    given = given_folder()
    places = () if given is None else (given / FOLDER, given / "caltech256" / FOLDER)
    folder = next((place for place in places if place.is_dir()), None)
    origin = "EDVIT_DATA"
    if folder is None:
        folder, origin = unpacked("caltech256", ARCHIVE) / FOLDER, "the original archive"
    folders = [entry for entry in class_folders(folder) if entry.name != _CLUTTER]
    odd = next((entry for entry in folders if not re.fullmatch(r"\d{3}\..+", entry.name)), None)
    if odd is not None:
        raise DataError(f"{odd} is no class of Caltech-256: its folders are named as 001.ak47 is")
    classes = tuple(entry.name.partition(".")[2] for entry in folders)
    return Source(
        "caltech256", f"{origin} ({folder})", mirrored=True, train=lambda: list_files(folders, classes)
    )
