"""The student that stands for a sub-model on an Edge TPU: convolutions, ReLU6 and fully connected layers.

A ViT's attention, GELU and norms are not among what an Edge TPU computes. The student takes the same picture
and gives the same outputs, and learns the sub-model's feature itself, so that one fusion reads both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.resume import Best, Snapshots
from edvit_tf.build.retrain import GroupData
from edvit_tf.build.training import Examples, Forward, Schedule, cross_entropy, fit, steps_of
from edvit_tf.vit.checkpoint import Weights
from edvit_tf.vit.config import ImageSize, ViTConfig
from edvit_tf.vit.keras import keras, tf
from edvit_tf.vit.layers import Normalise
from edvit_tf.vit.model import read_weights, write_weights

_KERNEL = 3
_TILE = 8  # filters come in multiples of it
_MOST_GROWTH = 8  # times the first layer's filters
_LARGEST_MAP = 7  # places on a side that the last convolutions see
_GREY = 128.0
_EPSILON, _MOMENTUM = 1e-3, 0.9  # of batch normalisation
_FEATURE_WEIGHT = 4.0


@dataclass(frozen=True, slots=True)
class StudentConfig:
    """What the student is.

    Attributes:
        image: the picture.
        filters: of each convolution; all but the last halve the picture.
        width: numbers in the feature.
        classes: logits.
    """

    image: ImageSize
    filters: tuple[int, ...]
    width: int
    classes: int

    @property
    def parameters(self) -> int:
        """Numbers that are stored, batch normalisation folded into the convolutions."""
        channels = zip((self.image.channels, *self.filters), self.filters, strict=False)
        convolutions = sum(_KERNEL**2 * taken * given + given for taken, given in channels)
        return convolutions + (self.filters[-1] + 1) * self.width + (self.width + 1) * self.classes


def student_of(submodel: ViTConfig) -> StudentConfig:
    """The largest student that has no more parameters than the sub-model, or the smallest there is."""
    found = _sized(submodel, _TILE)
    while (larger := _sized(submodel, found.filters[0] + _TILE)).parameters <= submodel.parameters:
        found = larger
    return found


def _sized(submodel: ViTConfig, first: int) -> StudentConfig:
    image = submodel.image
    side, filters = max(image.height, image.width), [first]
    side = -(-side // 2)
    while side > _LARGEST_MAP:
        side = -(-side // 2)
        filters.append(min(2 * filters[-1], _MOST_GROWTH * first))
    filters.append(min(2 * filters[-1], _MOST_GROWTH * first))
    return StudentConfig(image, tuple(filters), submodel.width, submodel.classes)


def build_student(config: StudentConfig) -> Any:
    """A `keras.Model` with fresh weights: uint8 [b, h, w, c] → `feature` f32 [b, width], `logits`."""
    layers = keras.layers
    image = config.image
    taken = layers.Input((image.height, image.width, image.channels), name="image", dtype="uint8")
    stream = Normalise((0.0,) * image.channels, (_GREY,) * image.channels, name="normalise")(taken)
    for index, filters in enumerate(config.filters):
        stream = layers.Conv2D(
            filters, _KERNEL, _stride(config, index), "same", use_bias=False, name=f"conv_{index}"
        )(stream)
        stream = layers.BatchNormalization(
            momentum=_MOMENTUM, epsilon=_EPSILON, fused=False, name=f"norm_{index}"
        )(stream)
        stream = layers.ReLU(6.0, name=f"relu_{index}")(stream)
    pooled = layers.GlobalAveragePooling2D(name="pooled")(stream)
    feature = layers.Dense(config.width, name="feature")(pooled)
    logits = layers.Dense(config.classes, name="head")(feature)
    return keras.Model(taken, {"feature": feature, "logits": logits}, name="student")


def distil(
    config: StudentConfig,
    data: GroupData,
    features: NDArray[np.float32],
    schedule: Schedule,
    *,
    seed: int,
    report: Callable[[float, str], None],
    snapshots: Snapshots | None = None,
) -> tuple[Weights, float]:
    """Train a student to say what the sub-model says; the epoch that is best on validation is kept.

    Args:
        config: of the student.
        data: of the sub-model's group.
        features: of the sub-model for every training picture, f32 [n, views, width].
        schedule: epochs, learning rate and so on.
        seed: decides initial weights and order.
        report: told the share done and a few words after every epoch.
        snapshots: where an interrupted training is taken up again.

    Returns:
        The weights and the validation accuracy.
    """
    keras.utils.set_random_seed(seed)
    model = build_student(config)
    best, forward = Best(read_weights(model)), Forward(model)
    own = data.own
    targets = np.concatenate([data.examples.targets[..., :own], features], axis=-1)
    # The sub-model spoke of the pictures as they are: moved ones would have other features.
    examples = Examples(data.examples.images, targets, shift=0)
    spread = float(np.var(features, axis=(0, 1)).mean())

    def loss(answer: Any, wanted: Any) -> Any:
        away = tf.reduce_mean(tf.math.squared_difference(answer["feature"], wanted[:, own:])) / spread
        return cross_entropy(answer, wanted[:, :own]) + _FEATURE_WEIGHT * away

    def after_epoch(epoch: int) -> None:
        reached = data.judge(forward(data.images)["logits"], data.labels)
        best.offer(reached, lambda: read_weights(model))
        report(epoch / schedule.epochs, f"epoch {epoch} of {schedule.epochs}, validation {reached:.2%}")

    fit(
        model,
        examples.batches(schedule.batch, data.choose),
        steps_of(data.rows, schedule.batch),
        schedule,
        loss=loss,
        seed=seed,
        after_epoch=after_epoch,
        best=best,
        snapshots=snapshots,
    )
    return dict(best.weights), best.accuracy


def student_with(config: StudentConfig, weights: Weights) -> Any:
    """The Keras model with these weights."""
    model = build_student(config)
    write_weights(model, weights)
    return model


def serving_student(config: StudentConfig, weights: Weights) -> Callable[[Any], dict[str, Any]]:
    """The function from `image` f32 [1, h, w, c], 0 to 255, to `feature` and `logits`, norms folded in."""
    folded = [_fold(weights, index) for index in range(len(config.filters))]

    def serve(image: Any) -> dict[str, Any]:
        stream = image
        for index, (kernel, bias) in enumerate(folded):
            stream = tf.nn.conv2d(stream, kernel, _stride(config, index), "SAME") + bias
            stream = tf.nn.relu6(stream)
        pooled = tf.reduce_mean(stream, axis=[1, 2])
        feature = tf.matmul(pooled, weights["feature/kernel"]) + weights["feature/bias"]
        return {
            "feature": feature,
            "logits": tf.matmul(feature, weights["head/kernel"]) + weights["head/bias"],
        }

    return serve


def _stride(config: StudentConfig, index: int) -> int:
    return 1 if index == len(config.filters) - 1 else 2


def _fold(weights: Weights, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Batch normalisation, and of the first convolution the picture's scale, in kernel and bias."""
    gamma, beta, mean, variance = (
        weights[f"norm_{index}/{name}"].astype(np.float64)
        for name in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    scale = gamma / np.sqrt(variance + _EPSILON)
    kernel = weights[f"conv_{index}/kernel"] * scale / (1.0 if index else _GREY)
    return kernel.astype(np.float32), (beta - mean * scale).astype(np.float32)
