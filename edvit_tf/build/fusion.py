"""The fusion: a tower MLP over the sub-models' features, trained with sub-models left out.

Each layer is half as wide as the one before (ED-ViT, arXiv 2410.11650); the sub-models are frozen, so their
features are computed once. What is missing is zeros, and `present` says so; a temperature for each number
missing makes the probabilities mean the same however many answered.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.balance import draw
from edvit_tf.build.resume import Best, Snapshots
from edvit_tf.build.training import Batches, Schedule, fit, steps_of
from edvit_tf.bundle.manifest import Calibration
from edvit_tf.runtime.ensemble import judge_of
from edvit_tf.vit.keras import keras
from edvit_tf.vit.model import read_weights, write_weights

_SMALLEST_LAYER = 2  # times the number of classes
_MOST_SUBSETS = 32
_TEMPERATURES = np.geomspace(0.25, 4.0, 161)

Features = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FusionSettings:
    """How the fusion is trained.

    Attributes:
        schedule: epochs, learning rate and so on.
        left_out: share of examples that miss one sub-model or more.
        balance: whether a class counts the same however many examples it has, see `balance.py`.
    """

    schedule: Schedule
    left_out: float
    balance: bool


@dataclass(frozen=True, slots=True)
class FusionData:
    """What the fusion learns from.

    Attributes:
        features: f32 [n, views, kinds, total width], concatenated in the order of the sub-models; of each
            there are as many kinds as models that may stand for it, the sub-model and its student.
        targets: probabilities f32 [n, views, classes].
        classes: int64 [n], what the examples are.
        validation: f32 [m, total width].
        labels: int64 [m].
        sizes: width of each sub-model's feature.
    """

    features: Features
    targets: NDArray[np.float32]
    classes: NDArray[np.int64]
    validation: Features
    labels: NDArray[np.int64]
    sizes: tuple[int, ...]


def build_fusion(sizes: Sequence[int], classes: int) -> Any:
    """Keras model: `features` f32 [b, total], `present` f32 [b, sub-models] → `logits` f32 [b, classes]."""
    layers = keras.layers
    features = layers.Input((sum(sizes),), name="features")
    present = layers.Input((len(sizes),), name="present")
    stream = layers.Concatenate(name="inputs")([features, present])
    for index, units in enumerate(tower(sum(sizes), classes)):
        stream = layers.Dense(units, activation="relu", name=f"layer_{index}")(stream)
    logits = layers.Dense(classes, name="head")(stream)
    return keras.Model({"features": features, "present": present}, {"logits": logits}, name="fusion")


def tower(width: int, classes: int) -> list[int]:
    """Units of the hidden layers: the features' width, then half each time while well above the classes."""
    units = [width]
    while units[-1] // 2 >= _SMALLEST_LAYER * classes:
        units.append(units[-1] // 2)
    return units


def train_fusion(
    data: FusionData,
    settings: FusionSettings,
    *,
    seed: int,
    report: Callable[[float, str], None],
    snapshots: Snapshots | None = None,
) -> Any:
    """Train a fusion; the epoch that is best on validation, everything present, is kept.

    Args:
        data: features and targets.
        settings: schedule, and how often sub-models are left out.
        seed: decides initial weights, order and which sub-models are left out.
        report: told the share done and a few words after every epoch.
        snapshots: where an interrupted training is taken up again.
    """
    keras.utils.set_random_seed(seed)
    model = build_fusion(data.sizes, data.targets.shape[-1])
    everything = np.ones(len(data.sizes), bool)
    judge = judge_of(settings.balance)
    best = Best(read_weights(model))
    epochs = settings.schedule.epochs

    def after_epoch(epoch: int) -> None:
        reached = judge(fuse(model, data.validation, data.sizes, everything), data.labels)
        best.offer(reached, lambda: read_weights(model))
        report(epoch / epochs, f"epoch {epoch} of {epochs}, validation {reached:.2%}")

    size = settings.schedule.batch
    fit(
        model,
        _batches(data, settings),
        steps_of(len(data.features), size),
        settings.schedule,
        seed=seed,
        after_epoch=after_epoch,
        best=best,
        snapshots=snapshots,
    )
    write_weights(model, dict(best.weights))
    return model


def fuse(
    model: Any, features: Features, sizes: Sequence[int], present: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Logits f32 [n, classes] of features f32 [n, total] when only those `present` (bool [N]) answer."""
    rows = np.broadcast_to(present, (len(features), len(sizes)))
    answer = model(_inputs(features, rows, sizes), training=False)
    return np.asarray(answer["logits"].numpy(), np.float32)


def calibrate(
    model: Any, features: Features, labels: NDArray[np.int64], sizes: Sequence[int]
) -> tuple[Calibration, ...]:
    """Fit a temperature for each number missing, 0 to N - 1: the least negative log-likelihood on validation.

    Of a number missing every choice counts, or 32 of them, evenly spaced, where there are more.
    """
    count = len(sizes)
    fitted = []
    for missing in range(count):
        subsets = list(itertools.combinations(range(count), count - missing))
        chosen = [subsets[i] for i in np.unique(np.linspace(0, len(subsets) - 1, _MOST_SUBSETS).astype(int))]
        logits = np.concatenate([fuse(model, features, sizes, np.isin(np.arange(count), s)) for s in chosen])
        temperature = fit_temperature(logits, np.tile(labels, len(chosen)))
        fitted.append(Calibration(missing=missing, temperature=temperature))
    return tuple(fitted)


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The temperature from 0.25 to 4 that makes the labels likeliest under softmax(logits / temperature)."""

    def loss(temperature: float) -> float:
        scaled = logits / temperature
        own = np.take_along_axis(scaled, labels[:, np.newaxis], axis=1)[:, 0]
        return float(np.mean(np.logaddexp.reduce(scaled, axis=1) - own))

    return round(float(min(_TEMPERATURES, key=loss)), 6)


def _batches(data: FusionData, settings: FusionSettings) -> Batches:
    size = min(settings.schedule.batch, len(data.features))
    everything = np.arange(len(data.features))

    def epoch(generator: np.random.Generator) -> Iterator[tuple[Any, NDArray[np.float32]]]:
        order = generator.permutation(
            draw(everything, data.classes, len(everything), generator) if settings.balance else everything
        )
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            view = generator.integers(0, data.features.shape[1], size)
            present = leave_out(size, len(data.sizes), settings.left_out, generator)
            features = any_kind(data.features[rows, view], data.sizes, generator)
            yield _inputs(features, present, data.sizes), data.targets[rows, view]

    return epoch


def any_kind(features: Features, sizes: Sequence[int], generator: np.random.Generator) -> Features:
    """Of f32 [b, kinds, total] one kind for each sub-model of each example, at random: f32 [b, total]."""
    count, kinds, _ = features.shape
    if kinds == 1:
        return features[:, 0]
    chosen = np.repeat(generator.integers(0, kinds, (count, len(sizes))), sizes, axis=1)
    return np.take_along_axis(features, chosen[:, np.newaxis], axis=1)[:, 0]


def leave_out(rows: int, submodels: int, share: float, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Who is present, bool [rows, submodels]: in `share` of the rows 1 to N - 1 are missing, at random."""
    present = np.ones((rows, submodels), bool)
    if submodels > 1:
        some = generator.random(rows) < share
        missing = generator.integers(1, submodels, rows)
        rank = generator.random((rows, submodels)).argsort(axis=1).argsort(axis=1)
        present[some] = rank[some] >= missing[some, np.newaxis]
    return present


def _inputs(features: Features, present: NDArray[np.bool_], sizes: Sequence[int]) -> dict[str, Features]:
    weights = present.astype(np.float32)
    return {"features": features * np.repeat(weights, sizes, axis=1), "present": weights}
