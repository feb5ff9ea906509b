"""IDX files, the form of MNIST and of those made after it: four files, images and labels of two parts."""

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.data.items import ArrayItems
from edvit_tf.errors import DataError

FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))


def holds_all(folder: Path) -> bool:
    """Tell whether a folder has all four files, each with or without `.gz`."""
    return all(_file(folder, stem) is not None for stem in FILES)


def read(folder: Path, part: str, classes: tuple[str, ...]) -> ArrayItems:
    """Read one part: `train`, or `t10k`, which is the test split.

    Raises:
        DataError: a file is missing or not what its name says.
    """
    images = read_idx(required(folder, f"{part}-images-idx3-ubyte"), dimensions=3)
    labels = read_idx(required(folder, f"{part}-labels-idx1-ubyte"), dimensions=1)
    if len(images) != len(labels):
        raise DataError(f"{folder} has {len(images)} images but {len(labels)} labels: fetch its files again")
    if len(labels) == 0 or int(labels.max()) >= len(classes):
        raise DataError(f"{folder} has no images or labels above {len(classes) - 1}: fetch its files again")
    return ArrayItems(classes, images[..., np.newaxis], labels.astype(np.int64))


def read_idx(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped when its name ends in `.gz`.

    Raises:
        DataError: it cannot be read, has another type or number of dimensions, or is cut short.
    """
    data = content(path)
    header = 4 + 4 * dimensions
    if len(data) < header or data[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(f"{path} is not an IDX file of bytes in {dimensions} dimensions: fetch it again")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", count=dimensions, offset=4))
    if len(data) - header != int(np.prod(shape)):
        raise DataError(f"{path} does not hold the {shape} bytes its header promises: fetch it again")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def required(folder: Path, stem: str) -> Path:
    """A file with or without `.gz`.

    Raises:
        DataError: there is neither.
    """
    path = _file(folder, stem)
    if path is None:
        raise DataError(f"{folder} has no {stem}.gz: fetch its files again", code="data.missing")
    return path


def content(path: Path) -> bytes:
    """The bytes of a file, unpacked.

    Raises:
        DataError: it cannot be read or is cut short.
    """
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): fetch it again") from error


def _file(folder: Path, stem: str) -> Path | None:
    return next((path for path in (folder / f"{stem}.gz", folder / stem) if path.is_file()), None)
