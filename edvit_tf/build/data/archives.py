"""Original archives: found here or downloaded, held against a known sum, unpacked into the cache."""

import hashlib
import shutil
import tarfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from edvit_tf.build.data.places import cache_folder, folder_beside, given_folder, put
from edvit_tf.errors import DataError

_SECONDS_TO_ANSWER = 20.0
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Archive:
    """A file of the net.

    Attributes:
        url: where it is published.
        algorithm: of the sum, a name that hashlib knows.
        digest: the sum in hex, as a maintained library publishes it.
    """

    url: str
    algorithm: str
    digest: str

    @property
    def file(self) -> str:
        """Its name."""
        return self.url.rpartition("/")[2]


def unpacked(name: str, archive: Archive) -> Path:
    """The folder an archive was unpacked to: in the cache, from `EDVIT_DATA` or by download.

    Args:
        name: of the data set, which is that of the folder.
        archive: a tar file, packed or not.

    Raises:
        DataError: it cannot be had, has another sum, or cannot be unpacked.
    """
    target = cache_folder(name)
    if target.is_dir():
        return target
    with folder_beside(target) as folder:
        given = given_folder()
        local = given / archive.file if given is not None else None
        path = local if local is not None and local.is_file() else fetch(archive, folder.parent)
        check(path, archive)
        try:
            with tarfile.open(path) as tar:
                tar.extractall(folder, filter="data")
        except (OSError, EOFError, tarfile.TarError) as error:
            raise DataError(
                f"{path} cannot be unpacked ({error}): is there room in {target.parent}?"
            ) from error
        put(folder, target)
    return target


def fetch(archive: Archive, folder: Path) -> Path:
    """Download a file into a folder.

    Raises:
        DataError: no answer, or not the right sum.
    """
    path = folder / archive.file
    try:
        with (
            # The addresses are constants of this package.
            urllib.request.urlopen(archive.url, timeout=_SECONDS_TO_ANSWER) as answer,  # noqa: S310
            path.open("wb") as file,
        ):
            shutil.copyfileobj(answer, file, _PIECE)
    except (OSError, urllib.error.URLError) as error:
        raise DataError(
            f"{archive.url} could not be downloaded ({error}): put {archive.file} in a folder and set "
            "EDVIT_DATA to it",
            code="data.missing",
        ) from error
    check(path, archive)
    return path


def check(path: Path, archive: Archive) -> None:
    """Hold a file against its sum.

    Raises:
        DataError: it has another one.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, archive.algorithm).hexdigest()
    if digest != archive.digest:
        raise DataError(
            f"{path} has a wrong checksum: fetch it again from {archive.url}", code="data.checksum"
        )
