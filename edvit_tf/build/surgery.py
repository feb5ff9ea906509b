"""Cut a ViT down to the units that are kept: weights in, smaller weights out. Pure NumPy.

Dimensions that are coupled are cut as one (UP-ViTs, arXiv 2111.15127): a residual channel goes from the patch
embedding, the class token, the positions, every norm, both ends of every block and the head; an attention
head goes from query, key, value and projection; a hidden unit of an MLP from both its layers; a channel of
the stem from its convolution and from what reads it.
"""

import math
import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.grouping import OTHER
from edvit_tf.errors import ModelError
from edvit_tf.vit.checkpoint import Checkpoint, Weights, check_weights
from edvit_tf.vit.config import BlockConfig, ViTConfig, weight_shapes

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """The units that stay, as rising indices into the model that is cut.

    Attributes:
        residual: channels of the residual stream, one set for the whole network.
        heads: for each block, its attention heads.
        mlp: for each block, its hidden units; a block that keeps neither goes whole.
        stem: for each convolution of the stem, its channels.
    """

    residual: Indices
    heads: tuple[Indices, ...]
    mlp: tuple[Indices, ...]
    stem: tuple[Indices, ...] = ()

    @property
    def blocks(self) -> list[int]:
        """The blocks that stay."""
        sizes = zip(self.heads, self.mlp, strict=True)
        return [index for index, (heads, mlp) in enumerate(sizes) if len(heads) or len(mlp)]


def keep_all(config: ViTConfig) -> Kept:
    """Every unit of a model."""
    return Kept(
        np.arange(config.width),
        tuple(np.arange(block.heads) for block in config.blocks),
        tuple(np.arange(block.mlp_units) for block in config.blocks),
        tuple(np.arange(channels) for channels in config.stem),
    )


def cut(config: ViTConfig, weights: Weights, kept: Kept) -> tuple[ViTConfig, Weights]:
    """The model with the kept units alone, and its config.

    Without a head or a hidden unit the rest computes what it did. Without a residual channel it does not
    quite: each norm takes its mean and variance over the channels that are left, so a cut model is retrained.

    Raises:
        ModelError: the weights do not fit the config, or the indices do not fit the model.
    """
    check_weights(config, weights)
    _check_kept(config, kept)
    smaller = replace(
        config,
        width=len(kept.residual),
        blocks=tuple(BlockConfig(len(kept.heads[block]), len(kept.mlp[block])) for block in kept.blocks),
        stem=tuple(len(channels) for channels in kept.stem),
    )
    return smaller, {
        _renamed(name, kept): _cut_weight(name, weight, config, kept)
        for name, weight in weights.items()
        if _block(name) is None or _block(name) in kept.blocks
    }


# What runs along the last two axes of a kernel, layer by layer. The other weights have only the last axis.
_AXES: dict[str, tuple[str | None, str | None]] = {
    "stem": ("stem before", "stem"),
    "patch_embedding": ("last of stem", "residual"),
    "class_token": (None, "residual"),
    "position_embedding": (None, "residual"),
    "attention_norm": (None, "residual"),
    "query": ("residual", "heads"),
    "key": ("residual", "heads"),
    "value": ("residual", "heads"),
    "projection": ("heads", "residual"),
    "mlp_norm": (None, "residual"),
    "mlp_up": ("residual", "mlp"),
    "mlp_down": ("mlp", "residual"),
    "final_norm": (None, "residual"),
    "head": ("residual", None),
}


def residual_weights(config: ViTConfig) -> list[str]:
    """Names of the weights that have the residual stream's channels as their last axis."""
    return [name for name in weight_shapes(config) if _AXES[_parts(name)["layer"]][1] == "residual"]


def _cut_weight(name: str, weight: NDArray[np.float32], config: ViTConfig, kept: Kept) -> NDArray[np.float32]:
    parts = _parts(name)
    inputs, outputs = _AXES[parts["layer"]]
    index = int(parts["block"] or parts["stem"] or 0)
    if parts["weight"] == "kernel" and inputs is not None:
        weight = weight.take(_units(inputs, index, config, kept), axis=-2)
    if outputs is not None:
        weight = weight.take(_units(outputs, index, config, kept), axis=-1)
    return weight.copy()


def _block(name: str) -> int | None:
    """The block that a weight is in; None for one outside of them."""
    block = _parts(name)["block"]
    return None if block is None else int(block)


def _renamed(name: str, kept: Kept) -> str:
    """Its name when only the kept blocks are counted."""
    block = _block(name)
    if block is None:
        return name
    return f"block_{kept.blocks.index(block)}_{name.removeprefix(f'block_{block}_')}"


def _parts(name: str) -> re.Match[str]:
    """Block, layer, place in the stem and weight of a name of `weight_shapes`."""
    parts = re.fullmatch(
        r"(?:block_(?P<block>\d+)_)?(?P<layer>[a-z_]*[a-z])(?:_(?P<stem>\d+))?/(?P<weight>\w+)", name
    )
    assert parts is not None  # noqa: S101 (check_weights knows every name)
    return parts


def _units(dimension: str, index: int, config: ViTConfig, kept: Kept) -> Indices:
    """Indices along one dimension, of a block or of the stem; a head stands for its `head_size` units."""
    picture = np.arange(config.image.channels)
    if dimension == "residual":
        return kept.residual
    if dimension == "mlp":
        return kept.mlp[index]
    if dimension == "stem":
        return kept.stem[index]
    if dimension == "stem before":
        return kept.stem[index - 1] if index else picture
    if dimension == "last of stem":
        return kept.stem[-1] if kept.stem else picture
    size = config.head_size
    return (kept.heads[index][:, None] * size + np.arange(size)).ravel()


def _check_kept(config: ViTConfig, kept: Kept) -> None:
    if len(kept.heads) != len(config.blocks) or len(kept.mlp) != len(config.blocks):
        raise ModelError(
            f"The model has {len(config.blocks)} blocks, but other numbers of them are to be cut."
        )
    if len(kept.stem) != len(config.stem):
        raise ModelError(f"The model's stem has {len(config.stem)} convolutions, not {len(kept.stem)}.")
    for index, channels in enumerate(config.stem):
        _check_indices(f"channels of stem {index}", kept.stem[index], channels)
    _check_indices("residual channels", kept.residual, config.width)
    if not kept.blocks:
        raise ModelError("At least one block must be kept.")
    for index in kept.blocks:
        block = config.blocks[index]
        _check_indices(f"heads of block {index}", kept.heads[index], block.heads)
        _check_indices(f"MLP units of block {index}", kept.mlp[index], block.mlp_units)


def _check_indices(what: str, indices: Indices, count: int) -> None:
    if len(indices) == 0 or indices[0] < 0 or indices[-1] >= count or (np.diff(indices) <= 0).any():
        raise ModelError(f"The kept {what} must be rising indices below {count}, at least one of them.")


def of_group(model: Checkpoint, group: tuple[int, ...]) -> Checkpoint:
    """A model of all classes as one of a group: its logits, and a last one for "other" if there are others.

    That one is the mean of the rest's logits plus log(their number), which is at most the logarithm of the
    sum of their exponentials and meets it when they are equal: where retraining starts, not where it ends.

    Raises:
        ModelError: a class that the model does not have, or one that comes twice.
    """
    classes = len(model.labels)
    if not group or len(set(group)) != len(group) or not set(group) <= set(range(classes)):
        raise ModelError(f"A group needs distinct classes from 0 to {classes - 1}, and has {group}.")
    rest = [index for index in range(classes) if index not in group]
    kernel, bias = model.weights["head/kernel"], model.weights["head/bias"]
    kernels, biases = [kernel[:, list(group)]], [bias[list(group)]]
    if rest:
        kernels.append(kernel[:, rest].mean(axis=1, keepdims=True))
        biases.append(bias[rest].mean(keepdims=True) + np.float32(math.log(len(rest))))
    head = {"head/kernel": np.concatenate(kernels, axis=1), "head/bias": np.concatenate(biases)}
    labels = (*(model.labels[index] for index in group), *([OTHER] if rest else []))
    return Checkpoint(model.config.with_classes(len(labels)), model.weights | head, labels)
