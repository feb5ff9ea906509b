"""Names, sizes and hashes of the files in a bundle's folder, on the disk as it is."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from edvit_tf.bundle.refusal import quote, refused
from edvit_tf.errors import BundleError

LARGEST_NUMBER_OF_FILES = 10_000
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
ROLLBACK = "manifest.rollback"


def plain_file(folder: Path, name: str) -> Path:
    """The regular file `name` in `folder`, no part of whose path is a symbolic link.

    Raises:
        BundleError: `bundle.missing_file`, or `bundle.path` when something else than a file stands there.
    """
    path = folder
    for part in name.split("/"):
        path = path / part
        try:
            mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            raise refused("missing_file", f"The bundle {folder} has no file {name}") from None
        except OSError as error:
            raise unreadable(path, error) from None
        if stat.S_ISLNK(mode):
            raise refused(
                "path",
                f"{quote(name)} in the bundle {folder} is a symbolic link, and a bundle holds plain files",
            )
    if not stat.S_ISREG(mode):
        raise refused("path", f"{quote(name)} in the bundle {folder} is no plain file")
    return path


def names_in(folder: Path) -> Iterator[str]:
    """Every name below `folder` that is not a directory, with forward slashes; links are not followed.

    Raises:
        BundleError: `bundle.limit` when there are more than anyone reads, directories counted.
    """
    seen = 0
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        try:
            with os.scandir(folder / prefix) as entries:
                for entry in entries:
                    seen += 1
                    if seen > LARGEST_NUMBER_OF_FILES:
                        raise refused(
                            "limit", f"The bundle {folder} holds more than {LARGEST_NUMBER_OF_FILES} files"
                        )
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{prefix}{entry.name}/")
                    else:
                        yield prefix + entry.name
        except OSError as error:
            raise unreadable(folder / prefix, error) from None


def size_and_hash(path: Path) -> tuple[int, str]:
    """The bytes of a file and its SHA-256 in lower-case hex, as `manifest.json` gives them."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            return file.tell(), digest.hexdigest()
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> BundleError:
    """The error for what is there and cannot be read."""
    return refused(
        "unreadable", f"{path} cannot be read ({error.strerror})", "check the disk and who may read it"
    )
