"""A data set: its classes, its pictures as bytes, and the splits they fall into.

Two kinds of source: a name of the registry (`fashion_mnist`), or a folder of class folders, with or without
`train/`, `val/` and `test/` above them. Where a folder has no validation or test part, a stratified tenth is
held out by the seed. The test split is read by `load_test` and nowhere else.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from edvit_tf.build.data import fashion_mnist
from edvit_tf.build.data.dataset import Dataset, Split
from edvit_tf.build.data.items import ArrayItems, PictureFiles
from edvit_tf.build.data.splits import hold_out
from edvit_tf.errors import DataError
from edvit_tf.vit.config import ImageSize

_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"))
_VALIDATION_FOLDERS = ("val", "validation", "valid")


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
        return ArrayItems(fashion_mnist.CLASSES, images, labels).read(image)[0], fashion_mnist.CLASSES
    folder = _folder(source)
    if (folder / "test").is_dir():
        listing = _list(folder / "test")
    else:
        listing = _hold_out(_list(_train_folder(folder)), seed)[1]
    return listing.read(image)[0], listing.classes


def _load_fashion_mnist(seed: int, image: ImageSize | None) -> Dataset:
    files = fashion_mnist.locate()
    images, labels = fashion_mnist.read(files.folder, "train")
    kept, held = hold_out(labels, seed)
    whole = ArrayItems(fashion_mnist.CLASSES, images, labels)
    return Dataset(
        "fashion_mnist",
        fashion_mnist.CLASSES,
        whole.take(kept).read(image)[0],
        whole.take(held).read(image)[0],
        files.origin,
        mirrored=True,
    )


_REGISTRY: dict[str, Callable[[int, ImageSize | None], Dataset]] = {"fashion_mnist": _load_fashion_mnist}


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
    train, skipped = listing.read(image)
    validation, others = held.read(ImageSize(*train.images.shape[1:]))
    return Dataset(
        folder.name,
        listing.classes,
        train,
        validation,
        f"folder ({folder})",
        mirrored=False,
        skipped=skipped + others,
    )


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


def _list(folder: Path) -> PictureFiles:
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
    return PictureFiles(tuple(entry.name for entry in folders), tuple(paths), np.asarray(labels, np.int64))


def _hold_out(listing: PictureFiles, seed: int) -> tuple[PictureFiles, PictureFiles]:
    few = np.flatnonzero(np.bincount(listing.labels) < 3)
    if len(few):
        raise DataError(
            f"class {listing.classes[few[0]]} has fewer than three pictures, too few to hold some out for "
            "validation and test: add pictures"
        )
    kept, held = hold_out(listing.labels, seed)
    return listing.take(kept), listing.take(held)
