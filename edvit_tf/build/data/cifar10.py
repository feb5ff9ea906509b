"""CIFAR-10: the binary version (Krizhevsky 2009), or a copy of it as class folders of pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edvit_tf.build.data.archives import Archive, unpacked
from edvit_tf.build.data.folders import folder_source
from edvit_tf.build.data.items import ArrayItems
from edvit_tf.build.data.places import given_folder
from edvit_tf.build.data.source import Source
from edvit_tf.errors import DataError

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
ARCHIVE = Archive(  # as TensorFlow Datasets publishes it
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "sha256",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
FOLDER = "cifar-10-batches-bin"
TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = ("test_batch.bin",)
_RECORD = 1 + 3 * 32 * 32  # a label, then the red, the green and the blue plane


def open_source() -> Source:
    """Find CIFAR-10: in `EDVIT_DATA`, its binary version or else class folders, or by download.

    Raises:
        DataError: it is not here and cannot be downloaded.
    """
    given = given_folder()
    if given is not None:
        for folder in (given / FOLDER, given):
            if all((folder / file).is_file() for file in (*TRAIN, *TEST)):
                return _binary(folder, "EDVIT_DATA")
        for folder in (given / "cifar10", given):
            if all((folder / "train" / label).is_dir() for label in CLASSES):
                return folder_source(folder, "cifar10", f"EDVIT_DATA ({folder})", mirrored=True)
    return _binary(unpacked("cifar10", ARCHIVE) / FOLDER, "the original archive")


def _binary(folder: Path, origin: str) -> Source:
    return Source(
        "cifar10",
        f"{origin} ({folder})",
        mirrored=True,
        train=lambda: read(folder, TRAIN),
        test=lambda: read(folder, TEST),
    )


def read(folder: Path, files: Sequence[str]) -> ArrayItems:
    """Read some of the binary version's files.

    Raises:
        DataError: one is missing, cut short or holds a label above 9.
    """
    try:
        data = np.concatenate([np.fromfile(folder / file, np.uint8) for file in files])
    except OSError as error:
        raise DataError(f"{error.filename or folder} cannot be read: fetch CIFAR-10 again") from error
    if len(data) == 0 or len(data) % _RECORD:
        raise DataError(f"a file of {folder} is cut short: fetch CIFAR-10 again")
    records = data.reshape(-1, _RECORD)
    labels = records[:, 0].astype(np.int64)
    if labels.max() >= len(CLASSES):
        raise DataError(f"{folder} has labels above {len(CLASSES) - 1}: fetch CIFAR-10 again")
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return ArrayItems(CLASSES, np.ascontiguousarray(images), labels)
