"""How many units each layer keeps, for a budget of bytes (ED-ViT, arXiv 2410.11650), and which."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.surgery import Indices, Kept
from edvit_tf.errors import ModelError, PlanError
from edvit_tf.vit.config import BlockConfig, ViTConfig

if TYPE_CHECKING:  # sizes are planned without TensorFlow
    from edvit_tf.build.importance import Importance

TILE = 8
"""Kernels work in tiles: an odd width costs as much as the next multiple."""

DEFAULT_SHARE = 0.55
"""Of the teacher's bytes, for all sub-models together: the paper's 180 MB for a ViT-B of 327."""


@dataclass(frozen=True, slots=True)
class Widths:
    """Sizes of a sub-model, the same in each of its blocks; `stem` has the channels of its convolutions.

    As text they stand in this order with x between: 2x2x24x56.
    """

    blocks: int
    heads: int
    width: int
    mlp_units: int
    stem: tuple[int, ...] = ()

    def __str__(self) -> str:
        return "x".join(map(str, (self.blocks, self.heads, self.width, self.mlp_units, *self.stem)))


def check_within(config: ViTConfig, widths: Widths) -> None:
    """Check that a model can be cut down to these widths.

    Raises:
        ModelError: the model's blocks differ.
        PlanError: it has less of something, or channels or MLP units are not in tiles.
    """
    block = _every_block(config)
    if len(widths.stem) != len(config.stem):
        raise PlanError(
            f"The widths {widths} have channels for {len(widths.stem)} convolutions of a stem, and the model "
            f"has {len(config.stem)}: name blocks, heads, channels, MLP units, then one number for each."
        )
    whole = Widths(len(config.blocks), block.heads, config.width, block.mlp_units, config.stem)
    sizes = (
        ("blocks", widths.blocks, whole.blocks),
        ("heads", widths.heads, whole.heads),
        ("channels", widths.width, whole.width),
        ("MLP units", widths.mlp_units, whole.mlp_units),
        *(("channels of the stem", *both) for both in zip(widths.stem, whole.stem, strict=True)),
    )
    for name, kept, most in sizes:
        if kept > most:
            raise PlanError(f"The widths {widths} keep {kept} {name}, and the model has {most}: keep fewer.")
        if name not in ("blocks", "heads") and kept % TILE and kept != most:
            raise PlanError(
                f"The widths {widths} keep {kept} {name}: kernels work in tiles, take a multiple of {TILE}."
            )


def uniform(config: ViTConfig, heads: int) -> Widths:
    """Keep `heads` of the model's heads, and of all channels and MLP units the same share.

    Shares are rounded to the nearest multiple of 8, never above what the model has.

    Raises:
        ModelError: the model's blocks differ.
        PlanError: the model has fewer heads, or none is to be kept.
    """
    block = _every_block(config)
    if not 1 <= heads <= block.heads:
        raise PlanError(f"{heads} heads cannot be kept: the model has {block.heads} in a block.")
    return Widths(
        len(config.blocks),
        heads,
        _share(config.width, heads, block.heads),
        _share(block.mlp_units, heads, block.heads),
        tuple(_share(channels, heads, block.heads) for channels in config.stem),
    )


def _every_block(config: ViTConfig) -> BlockConfig:
    """What each of the model's blocks is like."""
    block = config.blocks[0]
    if any(other != block for other in config.blocks):
        raise ModelError("Uniform widths need a model whose blocks are all the same size: start from one.")
    return block


def _share(units: int, part: int, whole: int) -> int:
    return min(units, max(TILE, in_tiles(units * part / whole)))


def in_tiles(units: float) -> int:
    """The nearest multiple of the tile, halves up."""
    return int(units / TILE + 0.5) * TILE


def narrowed(config: ViTConfig, widths: Widths) -> ViTConfig:
    """The config that cutting a model down to these widths gives."""
    block = BlockConfig(widths.heads, widths.mlp_units)
    return replace(config, width=widths.width, blocks=(block,) * widths.blocks, stem=widths.stem)


def most_logits(classes: int, submodels: int) -> int:
    """Logits of the sub-model with the largest group: its classes and "other", which a whole model lacks."""
    return classes if submodels == 1 else math.ceil(classes / submodels) + 1


def largest_within(config: ViTConfig, submodels: int, total_bytes: int | None = None) -> Widths:
    """The widest uniform sub-model of which `submodels` fit into a budget, counted in f32 parameters.

    All are counted with the head of the largest group, see `most_logits`.

    Args:
        config: the teacher.
        submodels: how many sub-models share the budget.
        total_bytes: the budget; without it `DEFAULT_SHARE` of the teacher's own bytes.

    Raises:
        PlanError: not even one head a block fits.
    """
    budget = int(DEFAULT_SHARE * config.f32_bytes) if total_bytes is None else total_bytes
    submodel = config.with_classes(most_logits(config.classes, submodels))
    for heads in range(config.blocks[0].heads, 0, -1):
        widths = uniform(config, heads)
        if submodels * narrowed(submodel, widths).f32_bytes <= budget:
            return widths
    smallest = submodels * narrowed(submodel, uniform(config, 1)).f32_bytes
    raise PlanError(
        f"{submodels} sub-models need at least {smallest:,} bytes with one head a block, and the budget is "
        f"{budget:,}: allow more bytes, or split over fewer devices."
    )


def choose(importance: "Importance", widths: Widths) -> Kept:
    """The units with the highest scores, layer by layer; of equals the first.

    Where blocks go whole, those stay whose units have the highest scores together.

    Raises:
        PlanError: more units are wanted than there are.
    """
    layers = zip(importance.heads, importance.mlp, strict=True)
    blocks = _top(np.asarray([heads.sum() + mlp.sum() for heads, mlp in layers]), widths.blocks)

    def in_blocks(layer: tuple[NDArray[np.float64], ...], count: int) -> tuple[Indices, ...]:
        return tuple(_top(scores, count if block in blocks else 0) for block, scores in enumerate(layer))

    return Kept(
        _top(importance.residual, widths.width),
        in_blocks(importance.heads, widths.heads),
        in_blocks(importance.mlp, widths.mlp_units),
        tuple(_top(s, channels) for s, channels in zip(importance.stem, widths.stem, strict=True)),
    )


def _top(scores: NDArray[np.float64], count: int) -> Indices:
    if count > len(scores):
        raise PlanError(f"{count} units cannot be kept of {len(scores)}.")
    return np.sort(np.argsort(-scores, kind="stable")[:count])
