"""Every sub-model of a bundle in this process: features of many pictures, and how right the bundle is."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import DataError
from edvit_tf.runtime.fusion import Fusion
from edvit_tf.runtime.interpreter import Flatbuffer

Images = NDArray[np.uint8]
Judge = Callable[[NDArray[np.float32], NDArray[np.int64]], float]
"""How right scores f32 [n, classes] are of labels int64 [n]: `accuracy` or `balanced_accuracy`."""
_THREADS = 2


@dataclass(frozen=True, slots=True)
class Answers:
    """What one flatbuffer says of n pictures: `features` f32 [n, width], `logits` f32 [n, classes]."""

    features: NDArray[np.float32]
    logits: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Fractions of `samples` pictures that were classified rightly.

    `single` is None when the bundle has no single student; `missing` is the fused accuracy without the
    sub-model of that id, and empty when there is only one.
    """

    teacher: float
    single: float | None
    fused: float
    missing: Mapping[str, float]
    samples: int


def run_many(flatbuffer: Path | bytes, images: Images, *, threads: int = _THREADS) -> Answers:
    """Run one sub-model (or teacher) on images uint8 [n, height, width, channels].

    Each thread has an interpreter and a share of the pictures: small models gain nothing from threads inside
    a call.

    Raises:
        ModelError: the flatbuffer cannot be loaded, or the pictures do not fit it.
    """
    shares = [share for share in np.array_split(images, threads) if len(share)]

    def run(loaded: Flatbuffer, share: Images) -> Answers:
        outputs = [loaded.run(image) for image in share]
        return Answers(np.stack([o.feature for o in outputs]), np.stack([o.logits for o in outputs]))

    with ThreadPoolExecutor(threads) as pool:
        # Loaded one after the other: two at once have failed in the delegate.
        parts = list(pool.map(run, [Flatbuffer(flatbuffer) for _ in shares], shares))
    return Answers(np.concatenate([p.features for p in parts]), np.concatenate([p.logits for p in parts]))


class BundleModels:
    """The sub-models of a bundle, each in the format `variant` (by default its first one), and the fusion.

    Raises:
        BundleError: a sub-model has no variant in that format.
    """

    def __init__(self, bundle: Bundle, variant: str | None = None) -> None:
        self._files = {
            submodel.id: bundle.file(submodel.variant(variant).file) for submodel in bundle.manifest.submodels
        }
        self._fusion = Fusion(bundle)

    @property
    def ids(self) -> tuple[str, ...]:
        """The sub-models' ids, in the manifest's order."""
        return tuple(self._files)

    def answers(self, images: Images) -> dict[str, Answers]:
        """Run every sub-model on images uint8 [n, height, width, channels]."""
        return {name: run_many(file, images) for name, file in self._files.items()}

    def fuse(self, answers: Mapping[str, Answers]) -> NDArray[np.float32]:
        """Return probabilities f32 [n, classes] of what these sub-models said; the others are missing."""
        features = {name: answer.features for name, answer in answers.items()}
        samples = len(next(iter(features.values())))
        return np.stack(
            [
                self._fusion.probabilities({name: rows[i] for name, rows in features.items()})
                for i in range(samples)
            ]
        )


def evaluate(
    bundle: Bundle, images: Images, labels: NDArray[np.int64], *, variant: str | None = None
) -> Evaluation:
    """Measure a bundle, through its flatbuffers, on pictures it has not seen.

    Args:
        bundle: an open bundle.
        images: uint8 [n, height, width, channels], n at least 1.
        labels: int64 [n], indices into the manifest's classes.
        variant: the format to use; by default that of each sub-model's first variant.

    Raises:
        BundleError: a sub-model has no variant in that format.
        ModelError: the pictures do not fit, or a flatbuffer cannot be run.
    """
    manifest = bundle.manifest
    models = BundleModels(bundle, variant)
    answers = models.answers(images)

    def baseline(file: str) -> float:
        return accuracy(run_many(bundle.file(file), images).logits, labels)

    def without(name: str) -> float:
        return accuracy(
            models.fuse({other: answer for other, answer in answers.items() if other != name}), labels
        )

    return Evaluation(
        teacher=baseline(manifest.teacher.file),
        single=baseline(manifest.single.file) if manifest.single else None,
        fused=accuracy(models.fuse(answers), labels),
        missing={name: without(name) for name in models.ids} if len(models.ids) > 1 else {},
        samples=len(images),
    )


def accuracy(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the fraction of rows of `scores` [n, classes] whose largest entry is the label's."""
    return float(np.mean(scores.argmax(axis=1) == labels))


def balanced_accuracy(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the mean over classes of the fraction of a class's rows that `accuracy` counts as right."""
    right = scores.argmax(axis=1) == labels
    return float(np.mean([right[labels == index].mean() for index in np.unique(labels)]))


def judge_of(balance: bool) -> Judge:
    """Return what a choice is judged by: the mean over classes when they count the same, else over rows."""
    return balanced_accuracy if balance else accuracy


def match_labels(
    labels: NDArray[np.int64], classes: Sequence[str], bundle_classes: Sequence[str]
) -> NDArray[np.int64]:
    """Turn indices into a data set's classes into indices into a bundle's, by name.

    Raises:
        DataError: the data set has a class that the bundle does not know.
    """
    unknown = [name for name in classes if name not in bundle_classes]
    if unknown:
        raise DataError(
            f"The bundle knows {', '.join(bundle_classes)}, and the data set has {', '.join(unknown)} too: "
            "evaluate on the data that it was made for."
        )
    return np.array([bundle_classes.index(name) for name in classes], np.int64)[labels]
