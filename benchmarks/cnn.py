"""A plain convolutional network to hold the ViT's parts against.

Five 3 x 3 convolutions, each with batch normalisation and ReLU, halved by max pooling after the first and the
third, then the mean over all places, which is the feature, and a linear head: a VGG as EC-SNN prunes it
(github.com/AmazingDD/EC-SNN), as small as the pictures are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from edvit_converters.tflite import convert_serving
from numpy.typing import NDArray

from edvit_tf.build.importance import fisher_target
from edvit_tf.vit.checkpoint import Weights
from edvit_tf.vit.config import ImageSize
from edvit_tf.vit.keras import keras, tf
from edvit_tf.vit.layers import Normalise
from edvit_tf.vit.model import read_weights, write_weights

GROWTH = (1, 2, 2, 4, 4)
"""Filters of each convolution, in those of the first."""

_POOLED = (0, 2)
_KERNEL = 3
_EPSILON, _MOMENTUM = 1e-3, 0.9  # of batch normalisation
_STEPS = 4  # sizes that are tried between one filter more in the first convolution and the next
_PROXY_BATCH = 64


@dataclass(frozen=True, slots=True)
class CnnConfig:
    """What the network is: the picture, filters of each convolution, logits, and the normalisation."""

    image: ImageSize
    filters: tuple[int, ...]
    classes: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @property
    def parameters(self) -> int:
        """Numbers that training changes, batch normalisation folded into the convolutions."""
        convolutions = sum(_KERNEL**2 * i * o + o for i, o in self._channels())
        return convolutions + (self.filters[-1] + 1) * self.classes

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one picture."""
        height, width, total = self.image.height, self.image.width, self.filters[-1] * self.classes
        for index, (inputs, outputs) in enumerate(self._channels()):
            total += height * width * _KERNEL**2 * inputs * outputs
            if index in _POOLED:
                height, width = height // 2, width // 2
        return total

    def _channels(self) -> list[tuple[int, int]]:
        return list(zip((self.image.channels, *self.filters), self.filters, strict=False))


def filters_of(size: float) -> tuple[int, ...]:
    """Filters of each convolution when the first has `size`, rounded, at least one."""
    return tuple(max(1, round(size * growth)) for growth in GROWTH)


def largest_within(config: CnnConfig, most_bytes: int) -> CnnConfig:
    """The widest network, up to the config's, whose f32 flatbuffer is a file of at most so many bytes.

    Raises:
        ValueError: not even one filter in the first convolution fits.
    """

    def fits(steps: int) -> bool:
        smaller = replace(config, filters=filters_of(steps / _STEPS))
        return len(to_flatbuffer(smaller, read_weights(build(smaller)), "f32")) <= most_bytes

    low, high = _STEPS, config.filters[0] * _STEPS
    if not fits(low):
        raise ValueError(f"no network of this kind is as small as {most_bytes} bytes")
    while low < high:  # low fits
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return replace(config, filters=filters_of(low / _STEPS))


def build(config: CnnConfig) -> Any:
    """A `keras.Model` with fresh weights: uint8 [b, h, w, c] → `feature` f32 [b, filters], `logits`."""
    layers = keras.layers
    image = layers.Input(
        (config.image.height, config.image.width, config.image.channels), name="image", dtype="uint8"
    )
    stream = Normalise(config.mean, config.deviation, name="normalise")(image)
    for index, filters in enumerate(config.filters):
        stream = layers.Conv2D(filters, _KERNEL, padding="same", use_bias=False, name=f"conv_{index}")(stream)
        stream = layers.BatchNormalization(
            momentum=_MOMENTUM, epsilon=_EPSILON, fused=False, name=f"norm_{index}"
        )(stream)
        stream = layers.ReLU(name=f"relu_{index}")(stream)
        if index in _POOLED:
            stream = layers.MaxPool2D(2, name=f"pool_{index}")(stream)
    feature = layers.GlobalAveragePooling2D(name="feature")(stream)
    logits = layers.Dense(config.classes, name="head")(feature)
    return keras.Model(image, {"feature": feature, "logits": logits}, name="cnn")


def to_flatbuffer(config: CnnConfig, weights: Weights, format_name: str) -> bytes:
    """The network as a flatbuffer with a sub-model's signature, batch normalisation folded in."""
    folded = [_fold(weights, index) for index in range(len(config.filters))]
    normalise = Normalise(config.mean, config.deviation)

    def serve(image: Any) -> dict[str, Any]:
        stream = normalise(image)
        for index, (kernel, bias) in enumerate(folded):
            stream = tf.nn.relu(tf.nn.conv2d(stream, kernel, 1, "SAME") + bias)
            if index in _POOLED:
                stream = tf.nn.max_pool2d(stream, 2, 2, "VALID")
        feature = tf.reduce_mean(stream, axis=[1, 2])
        return {
            "feature": feature,
            "logits": tf.matmul(feature, weights["head/kernel"]) + weights["head/bias"],
        }

    return convert_serving(serve, config.image, format_name)


def _fold(weights: Weights, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Kernel and bias of a convolution that scales and shifts as its batch normalisation does."""
    gamma, beta, mean, variance = (
        weights[f"norm_{index}/{name}"].astype(np.float64)
        for name in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    scale = gamma / np.sqrt(variance + _EPSILON)
    kernel = weights[f"conv_{index}/kernel"] * scale
    return kernel.astype(np.float32), (beta - mean * scale).astype(np.float32)


def score_filters(
    config: CnnConfig, weights: Weights, images: NDArray[np.uint8], *, seed: int
) -> tuple[NDArray[np.float64], ...]:
    """What each filter is worth to the pictures, scored as `edvit_tf.build.importance.fisher` does units."""
    model = build(config)
    write_weights(model, weights)
    taps = [model.get_layer(f"relu_{index}").output for index in range(len(config.filters))]
    tapped = keras.Model(model.input, {"logits": model.output["logits"], "taps": taps})

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def squares(batch: Any, signs: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            outputs = tapped(batch, training=False)
            target = fisher_target(outputs["logits"], signs)
        gradients = tape.gradient(target, outputs["taps"])
        gates = [tf.reduce_sum(a * g, axis=[1, 2]) for a, g in zip(outputs["taps"], gradients, strict=True)]
        return [tf.reduce_sum(tf.square(gate), axis=0) for gate in gates]

    signs = np.random.default_rng(seed).choice(np.asarray([-1, 1], np.float32), (len(images), config.classes))
    totals = [np.zeros(filters) for filters in config.filters]
    for start in range(0, len(images), _PROXY_BATCH):
        batch = slice(start, start + _PROXY_BATCH)
        found = squares(images[batch], signs[batch])
        totals = [total + part.numpy() for total, part in zip(totals, found, strict=True)]
    return tuple(totals)


def cut(
    config: CnnConfig, weights: Weights, scores: Sequence[NDArray[np.float64]], filters: Sequence[int]
) -> tuple[CnnConfig, Weights]:
    """Keep so many of each convolution's filters, those with the highest scores; the head's inputs follow."""
    kept = [
        np.sort(np.argsort(-score, kind="stable")[:count])
        for score, count in zip(scores, filters, strict=True)
    ]
    smaller: dict[str, NDArray[np.float32]] = {}
    inputs = np.arange(config.image.channels)
    for index, outputs in enumerate(kept):
        smaller[f"conv_{index}/kernel"] = weights[f"conv_{index}/kernel"][:, :, inputs][..., outputs]
        for name in ("gamma", "beta", "moving_mean", "moving_variance"):
            smaller[f"norm_{index}/{name}"] = weights[f"norm_{index}/{name}"][outputs]
        inputs = outputs
    smaller["head/kernel"] = weights["head/kernel"][inputs]
    smaller["head/bias"] = weights["head/bias"]
    return replace(config, filters=tuple(filters)), smaller


def with_fresh_head(config: CnnConfig, weights: Weights, classes: int) -> tuple[CnnConfig, Weights]:
    """The same convolutions under a head for other classes, its weights from Keras's random seed."""
    other = replace(config, classes=classes)
    fresh = read_weights(build(other))
    return other, {**weights, **{name: w for name, w in fresh.items() if name.startswith("head/")}}


def to_json(config: CnnConfig) -> Mapping[str, object]:
    """What `from_json` takes."""
    image = config.image
    return {
        "image": [image.height, image.width, image.channels],
        "filters": config.filters,
        "classes": config.classes,
        "mean": config.mean,
        "deviation": config.deviation,
    }


def from_json(entries: Mapping[str, Any]) -> CnnConfig:
    """The config that `to_json` wrote."""
    return CnnConfig(
        ImageSize(*entries["image"]),
        tuple(entries["filters"]),
        entries["classes"],
        tuple(entries["mean"]),
        tuple(entries["deviation"]),
    )
