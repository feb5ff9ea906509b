"""What each residual channel, attention head and MLP unit is worth to a group of classes.

UP-ViTs (arXiv 2111.15127) scores a unit by KL(softmax of the whole model ‖ softmax without it) over a few
proxy images of each class: one pass over them for each unit. Put a gate g = 1 on every unit. To second order
in the gate that is closed, for one image,

    KL(p(1) ‖ p(0)) ≈ ½ (∂logits/∂g)ᵀ F (∂logits/∂g),    F = diag(p) - p·pᵀ,

the Fisher information of the gate (the first order is zero: at g = 1 the divergence is at its least). And
F = B·Bᵀ with B = (I - p·1ᵀ)·diag(√p), so for a vector ε of independent random signs the square of
∂(logitsᵀ·B·ε)/∂g has the right mean. One backward pass gives it for every gate of every image: activation
times gradient, summed over the tokens, then squared. `divergence` is the exact score that `fisher` stands
for, one unit removed at a time: for a ViT-B, 38,000 passes over the proxy images for each group against one.

Scores are means over images, so each class is judged once, and a group has the means of its classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.surgery import residual_weights
from edvit_tf.errors import DataError
from edvit_tf.vit.checkpoint import Weights
from edvit_tf.vit.config import ViTConfig
from edvit_tf.vit.keras import keras, tf
from edvit_tf.vit.model import build, named_variables, write_weights

Scores = NDArray[np.float64]
Images = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Importance:
    """Estimated KL divergence, in nats an image, that removing one unit causes.

    Attributes:
        residual: [width].
        heads: for each block [heads].
        mlp: for each block [MLP units].
        stem: for each convolution of the stem [channels].
    """

    residual: Scores
    heads: tuple[Scores, ...]
    mlp: tuple[Scores, ...]
    stem: tuple[Scores, ...] = ()


def mean_importance(of_classes: Sequence[Importance]) -> Importance:
    """What units are worth to some classes together, each counting the same."""

    def mean(scores: Sequence[Scores]) -> Scores:
        return np.asarray(np.mean(scores, axis=0))

    def by_layer(layers: Sequence[tuple[Scores, ...]]) -> tuple[Scores, ...]:
        return tuple(mean(layer) for layer in zip(*layers, strict=True))

    return Importance(
        mean([one.residual for one in of_classes]),
        by_layer([one.heads for one in of_classes]),
        by_layer([one.mlp for one in of_classes]),
        by_layer([one.stem for one in of_classes]),
    )


def proxy_images(
    images: Images, labels: NDArray[np.int64], group: Sequence[int], *, per_class: int, seed: int
) -> Images:
    """The group's own images to judge units by: as many of each class, drawn without replacement.

    A class with fewer than `per_class` images sets the number for all, so that none outweighs another.

    Raises:
        DataError: a class of the group has no image.
    """
    members = [np.flatnonzero(labels == index) for index in group]
    empty = [index for index, found in zip(group, members, strict=True) if not len(found)]
    if empty:
        raise DataError(f"There is no image of class {empty[0]} to judge units by: add some.")
    count = min(per_class, *(len(found) for found in members))
    random = np.random.default_rng(seed)
    chosen = np.concatenate([random.choice(found, count, replace=False) for found in members])
    proxy: Images = images[np.sort(chosen)]
    return proxy


def fisher(
    config: ViTConfig, weights: Weights, *, batch_size: int = 16
) -> Callable[[Images, int], Importance]:
    """What scores all units by one forward and one backward pass over some images.

    Args:
        config: the whole model.
        weights: of the whole model.
        batch_size: images at once; memory grows with it, the scores stay.

    Returns:
        A function of images, uint8 [n, height, width, channels] (see `proxy_images`), and of a seed for the
        random signs. It raises DataError where there are no images.
    """
    model = build(config)
    write_weights(model, weights)
    tapped = _tapped(model, config)
    squares = tf.function(_squared_gate_gradients, reduce_retracing=True)

    def score(images: Images, seed: int) -> Importance:
        _check_some(images)
        signs = np.random.default_rng(seed).choice(
            np.asarray([-1, 1], np.float32), (len(images), config.classes)
        )
        totals: list[Scores] = []
        for start in range(0, len(images), batch_size):
            batch = slice(start, start + batch_size)
            found = [
                total.numpy().astype(np.float64)
                for total in squares(tapped, config, images[batch], signs[batch])
            ]
            totals = [a + b for a, b in zip(totals, found, strict=True)] if totals else found
        residual, *rest = [total / (2 * len(images)) for total in totals]
        depth = len(config.blocks)
        return Importance(
            residual, tuple(rest[:depth]), tuple(rest[depth : 2 * depth]), tuple(rest[2 * depth :])
        )

    return score


def divergence(config: ViTConfig, weights: Weights, images: Images) -> Importance:
    """All scores exactly (UP-ViTs): the mean over the images of KL(p(1) ‖ p(0)), one unit removed at a time.

    The reference that `fisher` is held against, in `reference_passes(config)` passes. A channel that is
    removed is neither written to the stream nor let through a norm; norms' statistics still count it.

    Args:
        config: the whole model.
        weights: of the whole model.
        images: uint8 [n, height, width, channels], see `proxy_images`; all go through at once.

    Raises:
        DataError: there are no images.
    """
    _check_some(images)
    model = build(config)
    write_weights(model, weights)
    variables = named_variables(model)
    answer = tf.function(lambda: tf.nn.log_softmax(model(images, training=False)["logits"]))
    whole = answer().numpy().astype(np.float64)

    def without(unit: _Unit) -> float:
        """The divergence with some slices of the weights at zero, which are put back again."""
        for name, (axis, where) in unit.items():
            changed = weights[name].copy()
            changed[(slice(None),) * (axis % changed.ndim) + (where,)] = 0
            variables[name].assign(changed)
        logarithms = answer().numpy()
        for name in unit:
            variables[name].assign(weights[name])
        return float((np.exp(whole) * (whole - logarithms)).sum(axis=-1).mean())

    blocks = list(enumerate(config.blocks))
    return Importance(
        np.asarray([without(_channel(config, channel)) for channel in range(config.width)]),
        tuple(np.asarray([without(_head(config, i, head)) for head in range(b.heads)]) for i, b in blocks),
        tuple(np.asarray([without(_mlp_unit(i, unit)) for unit in range(b.mlp_units)]) for i, b in blocks),
        tuple(
            np.asarray([without(_stem_channel(config, i, channel)) for channel in range(channels)])
            for i, channels in enumerate(config.stem)
        ),
    )


def _check_some(images: Images) -> None:
    if not len(images):
        raise DataError("There are no images to judge units by.")


def reference_passes(config: ViTConfig) -> int:
    """Forward passes over the proxy images that `divergence` takes: the whole model, then each unit."""
    blocks = sum(block.heads + block.mlp_units for block in config.blocks)
    return 1 + config.width + blocks + sum(config.stem)


_Unit = dict[str, tuple[int, slice]]
"""What to set to zero to remove a unit: by the weight's name an axis and where on it."""


def _channel(config: ViTConfig, channel: int) -> _Unit:
    return {name: (-1, slice(channel, channel + 1)) for name in residual_weights(config)}


def _head(config: ViTConfig, block: int, head: int) -> _Unit:
    size = config.head_size
    return {f"block_{block}_projection/kernel": (0, slice(head * size, (head + 1) * size))}


def _mlp_unit(block: int, unit: int) -> _Unit:
    return {f"block_{block}_mlp_down/kernel": (0, slice(unit, unit + 1))}


def _stem_channel(config: ViTConfig, index: int, channel: int) -> _Unit:
    reader = "patch_embedding" if index == len(config.stem) - 1 else f"stem_{index + 1}"
    return {f"{reader}/kernel": (2, slice(channel, channel + 1))}


def _tapped(model: Any, config: ViTConfig) -> Any:
    """The model with every gated activation beside its logits.

    Residual channels are gated at each write to the stream: the embedding and both halves of every block.
    """
    blocks = range(len(config.blocks))
    writes = ["position_embedding"]
    writes += [f"block_{index}_{layer}" for index in blocks for layer in ("projection", "mlp_down")]
    outputs = {
        "logits": model.output["logits"],
        "writes": [model.get_layer(name).output for name in writes],
        "heads": [model.get_layer(f"block_{index}_attention").output for index in blocks],
        "mlp": [model.get_layer(f"block_{index}_gelu").output for index in blocks],
        "stem": [model.get_layer(f"stem_{index}").output for index in range(len(config.stem))],
    }
    return keras.Model(model.input, outputs)


def _squared_gate_gradients(tapped: Any, config: ViTConfig, images: Any, signs: Any) -> list[Any]:
    """Sums over images of squared gate gradients: residual [width], heads, MLPs by block, and the stem's."""
    with tf.GradientTape() as tape:
        outputs = tapped(images, training=False)
        target = fisher_target(outputs["logits"], signs)
    kinds = {kind: outputs[kind] for kind in ("writes", "heads", "mlp", "stem")}
    gates = {
        kind: [_sum_over_places(a * g) for a, g in zip(kinds[kind], gradients, strict=True)]
        for kind, gradients in tape.gradient(target, kinds).items()
    }
    heads = [
        tf.reduce_sum(tf.reshape(gate, [-1, block.heads, config.head_size]), axis=-1)
        for gate, block in zip(gates["heads"], config.blocks, strict=True)
    ]
    per_image = [tf.add_n(gates["writes"]), *heads, *gates["mlp"], *gates["stem"]]
    return [tf.reduce_sum(tf.square(gate), axis=0) for gate in per_image]


def fisher_target(logits: Any, signs: Any) -> Any:
    """The scalar logitsᵀ·B·ε, summed over images, whose squared gate gradients estimate the divergence.

    Args:
        logits: f32 [b, classes].
        signs: ε, f32 [b, classes], each -1 or 1 at random.
    """
    probabilities = tf.stop_gradient(tf.nn.softmax(logits))
    vector = tf.sqrt(probabilities) * signs
    vector -= probabilities * tf.reduce_sum(vector, axis=-1, keepdims=True)
    return tf.reduce_sum(vector * logits)


def _sum_over_places(products: Any) -> Any:
    """[b, tokens, units] or [b, h, w, units] → [b, units]; the last block has the class token alone."""
    return tf.reduce_sum(products, axis=list(range(1, len(products.shape) - 1)))
