"""Where Fashion-MNIST comes from: five places in a fixed order, and a reader of its IDX files.

The order: `$EDVIT_DATA`, the folder of Debian's package `dataset-fashion-mnist`, Keras's cache, a download
through Keras (held against SHA-256 sums of the contents), and last the Debian package, fetched and unpacked
into the user's cache without root.
"""

import gzip
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.data.places import cache_folder
from edvit_tf.errors import DataError, EdvitError

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")

# SHA-256 of the contents (not of the .gz files, whose headers differ from one mirror to the next).
_CONTENTS = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_MIRROR = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
_SECONDS_TO_CONNECT = 10.0
_SECONDS_TO_FETCH = 300.0


@dataclass(frozen=True, slots=True)
class Source:
    """A folder that holds the four IDX files, and in words which of the five places it is."""

    folder: Path
    origin: str


def locate() -> Source:
    """Find the four files, downloading them when no folder on this machine has them.

    Raises:
        DataError: no place has them; the sentence says what to do.
    """
    for folder, origin in _places():
        if holds_all(folder):
            return Source(folder, f"{origin} ({folder})")
    reasons = []
    fetchers: tuple[tuple[str, Callable[[], Path]], ...] = (
        ("downloaded through Keras", _download_through_keras),
        (f"Debian package {PACKAGE}, unpacked", _unpack_debian_package),
    )
    for origin, fetch in fetchers:
        try:
            folder = fetch()
        except EdvitError as error:
            reasons.append(error.message)
        else:
            return Source(folder, f"{origin} ({folder})")
    raise DataError(
        "Fashion-MNIST is not on this machine and could not be downloaded "
        f"({'; '.join(reasons)}): put its four files in a folder and set EDVIT_DATA to it, "
        f"or install the Debian package {PACKAGE}",
        code="data.missing",
    )


def holds_all(folder: Path) -> bool:
    """Tell whether a folder has all four files, each with or without `.gz`."""
    return all(_file(folder, stem) is not None for stem in _CONTENTS)


def read(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read one part: `train`, or `t10k`, which is the test split.

    Returns:
        Images uint8 [n, height, width, 1] and labels int64 [n].

    Raises:
        DataError: a file is missing or not what its name says.
    """
    images = read_idx(_required(folder, f"{part}-images-idx3-ubyte"), dimensions=3)
    labels = read_idx(_required(folder, f"{part}-labels-idx1-ubyte"), dimensions=1)
    if len(images) != len(labels):
        raise DataError(f"{folder} has {len(images)} images but {len(labels)} labels: fetch its files again")
    if len(labels) == 0 or int(labels.max()) >= len(CLASSES):
        raise DataError(f"{folder} has no images or labels above {len(CLASSES) - 1}: fetch its files again")
    return images[..., np.newaxis], labels.astype(np.int64)


def read_idx(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped when its name ends in `.gz`.

    Raises:
        DataError: it cannot be read, has another type or number of dimensions, or is cut short.
    """
    content = _content(path)
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(f"{path} is not an IDX file of bytes in {dimensions} dimensions: fetch it again")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", count=dimensions, offset=4))
    if len(content) - header != int(np.prod(shape)):
        raise DataError(f"{path} does not hold the {shape} bytes its header promises: fetch it again")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _places() -> list[tuple[Path, str]]:
    given = os.environ.get("EDVIT_DATA")
    keras_home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    places = [
        (DEBIAN_FOLDER, f"Debian package {PACKAGE}"),
        (keras_home / "datasets" / "fashion-mnist", "Keras's cache"),
        (_cache() / "keras", "downloaded through Keras before"),
        (_cache() / "debian", f"Debian package {PACKAGE}, unpacked before"),
    ]
    if given:
        folder = Path(given).expanduser()
        places[:0] = [(folder, "EDVIT_DATA"), (folder / "fashion-mnist", "EDVIT_DATA")]
    return places


def _cache() -> Path:
    return cache_folder("fashion-mnist")


def _file(folder: Path, stem: str) -> Path | None:
    return next((path for path in (folder / f"{stem}.gz", folder / stem) if path.is_file()), None)


def _required(folder: Path, stem: str) -> Path:
    path = _file(folder, stem)
    if path is None:
        raise DataError(f"{folder} has no {stem}.gz: fetch its files again", code="data.missing")
    return path


def _content(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): fetch it again") from error


def _download_through_keras() -> Path:
    from edvit_tf.vit.keras import keras

    target = _cache() / "keras"
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS_TO_CONNECT)
    try:
        # Keras draws its progress on standard output, which is for answers.
        with _folder_beside(target) as folder, redirect_stdout(sys.stderr):
            for stem in _CONTENTS:
                keras.utils.get_file(folder / f"{stem}.gz", origin=f"{_MIRROR}{stem}.gz")
            check_contents(folder)
            _put(folder, target)
    except EdvitError:
        raise
    except Exception as error:  # get_file raises a bare Exception for whatever went wrong
        raise DataError(f"Keras: {' '.join(str(error).split())}") from error
    finally:
        socket.setdefaulttimeout(before)
    return target


def check_contents(folder: Path) -> None:
    """Hold the four files against the checksums of their contents.

    Raises:
        DataError: one is missing or is not what it should be.
    """
    for stem, sha256 in _CONTENTS.items():
        path = _required(folder, stem)
        if hashlib.sha256(_content(path)).hexdigest() != sha256:
            raise DataError(f"{path.name} has a wrong checksum")


def _unpack_debian_package() -> Path:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise DataError("no apt-get here")
    target = _cache() / "debian"
    with _folder_beside(target) as folder:
        try:
            _run(["apt-get", *_APT, "download", PACKAGE], folder)
        except DataError:
            # Bare containers have no package lists: fetch them into a folder of our own, which needs no root.
            private = [f"-oDir::State::lists={folder}/lists", f"-oDir::Cache={folder}/cache"]
            for name in ("lists/partial", "cache/archives/partial"):
                (folder / name).mkdir(parents=True)
            _run(["apt-get", *_APT, *private, "update"], folder)
            _run(["apt-get", *_APT, *private, "download", PACKAGE], folder)
        package = next(folder.glob(f"{PACKAGE}*.deb"))
        _run(["dpkg", "-x", str(package), str(folder / "root")], folder)
        unpacked = folder / "root" / DEBIAN_FOLDER.relative_to("/")
        if not holds_all(unpacked):
            raise DataError(f"the Debian package {PACKAGE} does not hold its four files")
        _put(unpacked, target)
    return target


_APT = ("-qq", "-oAPT::Sandbox::User=", "-oAcquire::Retries=1", "-oAcquire::http::Timeout=20")


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS_TO_FETCH, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{command[0]}: no answer within {_SECONDS_TO_FETCH:.0f} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        raise DataError(f"{command[0]}: {lines[0] if lines else f'exit status {done.returncode}'}")


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """A temporary folder on the file system of `target`, so that a rename puts it in place at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as name:
        folder = Path(name) / target.name
        folder.mkdir()
        yield folder


def _put(folder: Path, target: Path) -> None:
    # Another process may have put the same files there meanwhile: its copy is as good as ours.
    if not holds_all(target):
        folder.rename(target)
