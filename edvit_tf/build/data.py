"""A data set: its classes, its pictures as bytes, and the splits they fall into.

Two kinds of source: a name of the registry (`fashion_mnist`), or a folder of class folders, with or without
`train/`, `val/` and `test/` above them. Where a folder has no validation or test part, a stratified tenth is
held out by the seed. The test split is read by `load_test` and nowhere else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edvit_tf.build import fashion_mnist
from edvit_tf.bundle.picture import open_picture, prepare
from edvit_tf.errors import DataError, EdvitError
from edvit_tf.vit.config import ImageSize

HELD_OUT = 0.1
_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"))
_VALIDATION_FOLDERS = ("val", "validation", "valid")


@dataclass(frozen=True, slots=True)
class Split:
    """Images uint8 [n, height, width, channels] and labels int64 [n], the index of a class each."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> "Split":
        """The rows given, in their order."""
        return Split(self.images[rows], self.labels[rows])


@dataclass(frozen=True, slots=True)
class Dataset:
    """What training may see: a training and a validation split, never the test split.

    `origin` says in words where the pictures were found. `mirrored` tells whether a picture flipped left to
    right keeps its label.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    origin: str
    mirrored: bool

    @property
    def image(self) -> ImageSize:
        """The size of every picture."""
        height, width, channels = self.train.images.shape[1:]
        return ImageSize(height, width, channels)


def load(source: str | Path, *, seed: int, image: ImageSize | None = None) -> Dataset:
    """Load the training and validation splits of a registered data set or of a folder of class folders.

    Args:
        source: a name of the registry, or a folder.
        seed: which pictures are held out for validation.
        image: the size pictures are prepared to; by default their own (for a folder, the first one's).

    Raises:
        DataError: not there, fewer than two classes, an empty class, or pictures that cannot be read.
    """
    if str(source) in _REGISTRY:
        return _REGISTRY[str(source)](seed, image)
    return _load_folder(_folder(source), seed, image)


def class_names(source: str | Path) -> tuple[str, ...]:
    """The classes of a data set, in the order of its labels, without reading a picture.

    Raises:
        DataError: as for `load`.
    """
    if str(source) in _REGISTRY:
        return fashion_mnist.CLASSES
    return _list(_train_folder(_folder(source))).classes


def load_test(
    source: str | Path, *, seed: int, image: ImageSize | None = None
) -> tuple[Split, tuple[str, ...]]:
    """Load the test split and the class labels: for evaluation, after everything has been chosen.

    `seed` must be the training's: a folder without `test/` holds its test pictures out by it.

    Raises:
        DataError: as for `load`.
    """
    if str(source) in _REGISTRY:
        files = fashion_mnist.locate()
        images, labels = fashion_mnist.read(files.folder, "t10k")
        return Split(_resize_all(images, image), labels), fashion_mnist.CLASSES
    folder = _folder(source)
    if (folder / "test").is_dir():
        listing = _list(folder / "test")
    else:
        listing = _hold_out(_list(_train_folder(folder)), seed)[1]
    return _read(listing, image), listing.classes


def mean_and_deviation(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, on the scale 0..255; of a constant channel 0 becomes 1."""
    axes = (0, 1, 2)
    mean = images.mean(axis=axes, dtype=np.float64)
    deviation = images.std(axis=axes, dtype=np.float64)
    deviation[deviation == 0] = 1.0
    return tuple(mean.tolist()), tuple(deviation.tolist())


def hold_out(
    labels: Sequence[int] | NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide rows into those kept and a tenth held out, class by class; both sorted.

    A class of two pictures or more keeps at least one and holds out at least one.
    """
    generator = np.random.default_rng(seed)
    labels = np.asarray(labels)
    held = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = min(max(1, round(len(rows) * HELD_OUT)), len(rows) - 1)
        held.append(generator.permutation(rows)[:count])
    out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), out), out


def _load_fashion_mnist(seed: int, image: ImageSize | None) -> Dataset:
    files = fashion_mnist.locate()
    images, labels = fashion_mnist.read(files.folder, "train")
    kept, held = hold_out(labels, seed)
    whole = Split(_resize_all(images, image), labels)
    return Dataset(
        "fashion_mnist",
        fashion_mnist.CLASSES,
        whole.take(kept),
        whole.take(held),
        files.origin,
        mirrored=True,
    )


_REGISTRY: dict[str, Callable[[int, ImageSize | None], Dataset]] = {"fashion_mnist": _load_fashion_mnist}


@dataclass(frozen=True, slots=True)
class _Listing:
    """Picture files and the index of the class each lies in."""

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> "_Listing":
        return _Listing(self.classes, tuple(self.paths[row] for row in rows), self.labels[rows])


def _load_folder(folder: Path, seed: int, image: ImageSize | None) -> Dataset:
    listing = _list(_train_folder(folder))
    if not (folder / "test").is_dir():
        listing = _hold_out(listing, seed)[0]
    given = next((folder / name for name in _VALIDATION_FOLDERS if (folder / name).is_dir()), None)
    if given is None:
        listing, held = _hold_out(listing, seed + 1)
    else:
        held = _list(given)
        if held.classes != listing.classes:
            raise DataError(
                f"{given} has other classes than {_train_folder(folder)}: give both the same folders"
            )
    train = _read(listing, image)
    validation = _read(held, ImageSize(*train.images.shape[1:]))
    return Dataset(folder.name, listing.classes, train, validation, f"folder ({folder})", mirrored=False)


def _folder(source: str | Path) -> Path:
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"{source} is neither a folder of class folders nor a known data set ({', '.join(_REGISTRY)})",
            code="data.missing",
        )
    return folder.resolve()


def _train_folder(folder: Path) -> Path:
    return folder / "train" if (folder / "train").is_dir() else folder


def _list(folder: Path) -> _Listing:
    reserved = {"train", "test", *_VALIDATION_FOLDERS}
    folders = sorted(
        entry
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in reserved
    )
    if len(folders) < 2:
        raise DataError(
            f"{folder} has class folders for {len(folders)} of at least two classes: "
            "put the pictures of each class in a folder with the class's name"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, entry in enumerate(folders):
        found = sorted(path for path in entry.iterdir() if path.suffix.lower() in _SUFFIXES)
        if not found:
            raise DataError(f"{entry} has no pictures: fill it or remove it")
        paths += found
        labels += [label] * len(found)
    return _Listing(tuple(entry.name for entry in folders), tuple(paths), np.asarray(labels, np.int64))


def _hold_out(listing: _Listing, seed: int) -> tuple[_Listing, _Listing]:
    few = np.flatnonzero(np.bincount(listing.labels) < 3)
    if len(few):
        raise DataError(
            f"class {listing.classes[few[0]]} has fewer than three pictures, too few to hold some out for "
            "validation and test: add pictures"
        )
    kept, held = hold_out(listing.labels, seed)
    return listing.take(kept), listing.take(held)


def _read(listing: _Listing, image: ImageSize | None) -> Split:
    images: list[NDArray[np.uint8]] = []
    unreadable: list[str] = []
    for path in listing.paths:
        try:
            picture = open_picture(path)
            if image is None:
                image = ImageSize(picture.height, picture.width, 1 if picture.mode in ("1", "L") else 3)
            images.append(prepare(picture, image))
        except EdvitError as error:
            unreadable.append(error.message)
    if unreadable:
        raise DataError(
            f"{len(unreadable)} of {len(listing.paths)} pictures cannot be read, the first: {unreadable[0]}",
            code="data.unreadable",
        )
    return Split(np.stack(images), listing.labels)


def _resize_all(images: NDArray[np.uint8], image: ImageSize | None) -> NDArray[np.uint8]:
    if image is None or images.shape[1:] == (image.height, image.width, image.channels):
        return images
    return np.stack([prepare(Image.fromarray(picture[..., 0]), image) for picture in images])
