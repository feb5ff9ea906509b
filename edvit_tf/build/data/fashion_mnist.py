"""Where Fashion-MNIST comes from: five places in a fixed order.

The order: `$EDVIT_DATA`, the folder of Debian's package `dataset-fashion-mnist`, Keras's cache, a download
through Keras (held against SHA-256 sums of the contents), and last the Debian package, fetched and unpacked
into the user's cache without root.
"""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from edvit_tf.build.data.idx import content, holds_all, read, required
from edvit_tf.build.data.places import cache_folder, folder_beside, given_folder, put
from edvit_tf.build.data.source import Source
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
class Found:
    """A folder that holds the four IDX files, and in words which of the five places it is."""

    folder: Path
    origin: str


def locate() -> Found:
    """Find the four files, downloading them when no folder on this machine has them.

    Raises:
        DataError: no place has them; the sentence says what to do.
    """
    for folder, origin in _places():
        if holds_all(folder):
            return Found(folder, f"{origin} ({folder})")
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
            return Found(folder, f"{origin} ({folder})")
    raise DataError(
        "Fashion-MNIST is not on this machine and could not be downloaded "
        f"({'; '.join(reasons)}): put its four files in a folder and set EDVIT_DATA to it, "
        f"or install the Debian package {PACKAGE}",
        code="data.missing",
    )


def open_source() -> Source:
    """Find the data set.

    Raises:
        DataError: as for `locate`.
    """
    found = locate()
    return Source(
        "fashion_mnist",
        found.origin,
        mirrored=True,
        train=lambda: read(found.folder, "train", CLASSES),
        test=lambda: read(found.folder, "t10k", CLASSES),
        draw=0,  # the split that the teacher that ships was trained on
    )


def _places() -> list[tuple[Path, str]]:
    keras_home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    places = [
        (DEBIAN_FOLDER, f"Debian package {PACKAGE}"),
        (keras_home / "datasets" / "fashion-mnist", "Keras's cache"),
        (_cache() / "keras", "downloaded through Keras before"),
        (_cache() / "debian", f"Debian package {PACKAGE}, unpacked before"),
    ]
    folder = given_folder()
    if folder is not None:
        places[:0] = [(folder, "EDVIT_DATA"), (folder / "fashion-mnist", "EDVIT_DATA")]
    return places


def _cache() -> Path:
    return cache_folder("fashion-mnist")


def _download_through_keras() -> Path:
    from edvit_tf.vit.keras import keras

    target = _cache() / "keras"
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS_TO_CONNECT)
    try:
        # Keras draws its progress on standard output, which is for answers.
        with folder_beside(target) as folder, redirect_stdout(sys.stderr):
            for stem in _CONTENTS:
                keras.utils.get_file(folder / f"{stem}.gz", origin=f"{_MIRROR}{stem}.gz")
            check_contents(folder)
            put(folder, target)
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
        path = required(folder, stem)
        if hashlib.sha256(content(path)).hexdigest() != sha256:
            raise DataError(f"{path.name} has a wrong checksum")


def _unpack_debian_package() -> Path:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise DataError("no apt-get here")
    target = _cache() / "debian"
    with folder_beside(target) as folder:
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
        put(unpacked, target)
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
