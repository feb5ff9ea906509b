"""What a data set is once it is read: arrays of bytes, labels, and what is known of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edvit_tf.bundle.manifest import SoundSpec
from edvit_tf.vit.config import ImageSize


@dataclass(frozen=True, slots=True)
class Split:
    """Images uint8 [n, height, width, channels] and labels int64 [n], the index of a class each.

    The images may be a file that is mapped for reading: they cannot be written to, and take no memory until
    they are looked at.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> "Split":
        """The rows given, in their order."""
        return Split(self.images[rows], self.labels[rows])

    def counts(self, classes: int) -> NDArray[np.int64]:
        """How many there are of each class, int64 [classes]."""
        return np.bincount(self.labels, minlength=classes).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was left out, and why."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """What training may see: a training and a validation split, never the test split.

    `origin` says in words where the pictures were found. `mirrored` tells whether a picture flipped left to
    right keeps its label. `skipped` names the files that could not be read,
    `sound` says how sound became pictures.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    origin: str
    mirrored: bool
    skipped: tuple[Skipped, ...] = ()
    sound: SoundSpec | None = None

    @property
    def image(self) -> ImageSize:
        """The size of every picture."""
        height, width, channels = self.train.images.shape[1:]
        return ImageSize(height, width, channels)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Training pictures of each class, int64 [classes]: what whoever balances them needs."""
        return self.train.counts(len(self.classes))

    def summary(self) -> str:
        """The data in one sentence: how many, the smallest and the largest class, what was skipped."""
        counts = self.counts
        least, most = int(counts.argmin()), int(counts.argmax())
        said = f"{len(self.train)} pictures to train on, {len(self.validation)} to validate: {self.origin}"
        if counts[least] != counts[most]:
            said += (
                f"; {counts[least]} of {self.classes[least]} (the fewest) to "
                f"{counts[most]} of {self.classes[most]}"
            )
        return f"{said}; skipped files: {len(self.skipped)}" if self.skipped else said

    def report(self) -> dict[str, object]:
        """The data as a report gives it: how many of each class, what was skipped and why."""
        train, validation = self.counts.tolist(), self.validation.counts(len(self.classes)).tolist()
        return {
            "name": self.name,
            "origin": self.origin,
            "classes": [
                {"label": label, "train": train[index], "validation": validation[index]}
                for index, label in enumerate(self.classes)
            ],
            "skipped": [{"file": item.file, "reason": item.reason} for item in self.skipped],
        }


def mean_and_deviation(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, on the scale 0..255; of a constant channel 0 becomes 1.

    Counted from a histogram, so that pictures in a mapped file need not fit in memory.
    """
    levels = np.arange(256, dtype=np.float64)
    means, deviations = [], []
    for channel in range(images.shape[-1]):
        histogram = np.zeros(256, np.int64)
        for start in range(0, len(images), _ROWS):
            histogram += np.bincount(images[start : start + _ROWS, ..., channel].ravel(), minlength=256)
        mean = float(histogram @ levels) / int(histogram.sum())
        variance = float(histogram @ (levels - mean) ** 2) / int(histogram.sum())
        means.append(mean)
        deviations.append(variance**0.5 or 1.0)
    return tuple(means), tuple(deviations)


_ROWS = 1024
