"""What a source hands out: pictures with their labels, not read before they are asked for."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edvit_tf.build.data.dataset import Skipped, Split
from edvit_tf.build.data.decoded import Piece, decoded
from edvit_tf.bundle.picture import open_picture, prepare
from edvit_tf.errors import EdvitError
from edvit_tf.vit.config import ImageSize

CHUNK = 256
_THREADS = 2


class Items(Protocol):
    """Pictures that have not been read, and the index of the class of each, int64 [n]."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Indices into the classes."""

    def take(self, rows: NDArray[np.int64]) -> "Items":
        """Some of them."""

    def read(self, image: ImageSize | None) -> tuple[Split, tuple[Skipped, ...]]:
        """Read all of them; those that cannot be read are left out and named.

        Raises:
            DataError: too many of them.
        """


@dataclass(frozen=True, slots=True)
class ArrayItems:
    """Pictures that lie in one array, uint8 [n, height, width, channels]."""

    classes: tuple[str, ...]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> "ArrayItems":
        """Some of them."""
        return ArrayItems(self.classes, self.images[rows], self.labels[rows])

    def read(self, image: ImageSize | None) -> tuple[Split, tuple[Skipped, ...]]:
        """Bring them to the size asked for."""
        if image is None or self.images.shape[1:] == (image.height, image.width, image.channels):
            return Split(self.images, self.labels), ()
        digest = hashlib.sha256(self.images.tobytes()).hexdigest()
        return decoded(("array", digest, image), self.labels, lambda: self._resized(image))

    def _resized(self, image: ImageSize) -> Iterator[Piece]:
        grey = self.images.shape[-1] == 1
        for picture in self.images:
            yield prepare(Image.fromarray(picture[..., 0] if grey else picture), image)


@dataclass(frozen=True, slots=True)
class PictureFiles:
    """Picture files and the class each belongs to."""

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> "PictureFiles":
        """Some of them."""
        return PictureFiles(self.classes, tuple(self.paths[row] for row in rows), self.labels[rows])

    def read(self, image: ImageSize | None) -> tuple[Split, tuple[Skipped, ...]]:
        """Decode them, to the size of the first where none is asked for."""
        key = ("pictures", fingerprint(self.paths), image)
        return decoded(key, self.labels, lambda: self._pictures(image))

    def _pictures(self, image: ImageSize | None) -> Iterator[Piece]:
        size = image or self._first_size()

        def read(path: Path) -> Piece:
            try:
                return prepare(open_picture(path), size)
            except EdvitError as error:
                return Skipped(str(path), error.message)

        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(self.paths), CHUNK):  # so that no more than a chunk waits in memory
                yield from pool.map(read, self.paths[start : start + CHUNK])

    def _first_size(self) -> ImageSize:
        for path in self.paths:
            try:
                picture = open_picture(path)
            except EdvitError:
                continue
            return ImageSize(picture.height, picture.width, 1 if picture.mode in ("1", "L") else 3)
        return ImageSize(1, 1, 1)  # none can be read, which is said of each


def fingerprint(paths: tuple[Path, ...]) -> str:
    """What changes when any of these files does: a hash of names, sizes and times."""
    digest = hashlib.sha256()
    for path in paths:
        facts = path.stat()
        digest.update(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()
