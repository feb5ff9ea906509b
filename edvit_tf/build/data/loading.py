"""Reading a data set: a training and a validation split, or the test split; never both at once."""

from pathlib import Path

import numpy as np

from edvit_tf.build.data.dataset import Dataset, Split
from edvit_tf.build.data.items import Form, Items
from edvit_tf.build.data.registry import REGISTRY, find, parse
from edvit_tf.build.data.source import Source
from edvit_tf.build.data.splits import hold_out, long_tail
from edvit_tf.bundle.manifest import SoundSpec
from edvit_tf.errors import DataError
from edvit_tf.vit.config import ImageSize


def load(
    source: str | Path, *, seed: int, image: ImageSize | None = None, sound: SoundSpec | None = None
) -> Dataset:
    """Load the training and validation splits of a registered data set or of a folder of class folders.

    What has no validation or test part has a stratified tenth held out for it.

    Args:
        source: a name of the registry or a folder; `?long-tail=RATIO` behind it thins out its classes.
        seed: which pictures are held out, and which a long tail keeps.
        image: the size pictures are prepared to; by default their own (for a folder, the first one's).
        sound: how sound becomes pictures; by default what suits the data.

    Raises:
        DataError: not there, fewer than two classes, an empty class, or pictures that cannot be read.
        UsageError: an option that there is not.
    """
    request = parse(source)
    found = find(request.place)
    train, held = _parts(found, seed)
    sound = train.specify(image, sound)
    pictures, skipped = train.read(Form(image, sound))
    size = ImageSize(*pictures.images.shape[1:])
    validation, others = held.read(Form(size, held.specify(size, sound)))
    dataset = Dataset(
        found.name,
        train.classes,
        pictures,
        validation,
        found.origin,
        mirrored=found.mirrored,
        skipped=skipped + others,
        sound=sound,
    )
    return dataset if request.long_tail is None else long_tail(dataset, request.long_tail, seed)


def class_names(source: str | Path) -> tuple[str, ...]:
    """The classes of a data set, in the order of its labels, without reading a picture.

    Raises:
        DataError, UsageError: as for `load`.
    """
    place = parse(source).place
    known = REGISTRY[place].classes if place in REGISTRY else None
    return find(place).train().classes if known is None else known


def load_test(
    source: str | Path, *, seed: int, image: ImageSize | None = None, sound: SoundSpec | None = None
) -> tuple[Split, tuple[str, ...]]:
    """Load the test split and the class labels: for evaluation, after everything has been chosen.

    `seed` must be the training's: a folder without `test/` holds its test pictures out by it. A long tail
    leaves the test split whole. Pictures of sound are computed as the aggregator does, by the bundle's
    specification `sound`.

    Raises:
        DataError, UsageError: as for `load`.
    """
    found = find(parse(source).place)
    items = found.test() if found.test is not None else _hold_out(found.train(), seed)[1]
    return items.read(Form(image, items.specify(image, sound), training=False))[0], items.classes


def _parts(found: Source, seed: int) -> tuple[Items, Items]:
    """What is trained on and what validates, less what is held out for a test."""
    train = found.train()
    if found.test is None:
        train, _ = _hold_out(train, seed)
    if found.validation is None:
        return _hold_out(train, seed + found.draw)
    held = found.validation()
    if held.classes != train.classes:
        raise DataError(
            f"the validation part of {found.name} has other classes than its training part: give both the "
            "same folders"
        )
    return train, held


def _hold_out(items: Items, seed: int) -> tuple[Items, Items]:
    few = np.flatnonzero(np.bincount(items.labels) < 3)
    if len(few):
        raise DataError(
            f"class {items.classes[few[0]]} has fewer than three pictures, too few to hold some out for "
            "validation and test: add pictures"
        )
    kept, held = hold_out(items.labels, seed)
    return items.take(kept), items.take(held)
