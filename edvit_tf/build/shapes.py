"""Shapes of a sub-model that take as many bytes as the uniform one: fewer blocks, a wider stream.

ED-ViT keeps every block and narrows all of them alike, which far below the teacher's size leaves a stream of
few channels. Which shape learns most cannot be told from the teacher's units: an export with `--widths tried`
trains a student of all classes for a moment in each of these, the best of them again for longer, and takes
the one that is best on validation then (successive halving, Jamieson and Talwalkar, arXiv 1502.07943).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from edvit_tf.build.widths import TILE, Widths, in_tiles, narrowed
from edvit_tf.vit.config import ViTConfig

TRIAL_EPOCHS = 2
FINALISTS, FINAL_EPOCHS = 4, 8
"""How many shapes are trained for longer, and for how many epochs."""

_DEPTHS = (1.0, 0.75, 0.5)
_WIDTHS = (1.0, 1.25, 1.5, 2.0, 2.5)
_STEMS = (1.0, 1.5, 2.0)
_MLP_UNITS = (0.5, 4.0)
"""The least and the most hidden units of an MLP for each channel of the stream."""


@dataclass(frozen=True, slots=True)
class TriedShape:
    """A shape, and the validation accuracy of the student that was trained in it for some epochs."""

    widths: Widths
    epochs: int
    accuracy: float


def by_accuracy(tried: Sequence[TriedShape]) -> list[TriedShape]:
    """Those that were trained for longest first, and of them the best."""
    return sorted(tried, key=lambda shape: (-shape.epochs, -shape.accuracy))


def shapes(config: ViTConfig, uniform: Widths) -> tuple[Widths, ...]:
    """The uniform widths first, then others whose sub-model takes at most as many bytes in f32.

    Args:
        config: of the teacher.
        uniform: what the paper's sub-model keeps.
    """
    most = narrowed(config, uniform).f32_bytes
    found = [uniform]
    for outline in _outlines(config, uniform):
        units = _mlp_units_within(config, outline, most)
        least_units, most_units = (share * outline.width for share in _MLP_UNITS)
        if least_units <= units <= most_units:
            found.append(replace(outline, mlp_units=units))
    return tuple(dict.fromkeys(found))


def _outlines(config: ViTConfig, uniform: Widths) -> Iterator[Widths]:
    """All but the hidden units; as many heads as the uniform ones, or as many for each channel."""
    whole = config.blocks[0]
    for depth in _DEPTHS:
        for factor in _WIDTHS:
            width = min(config.width, in_tiles(factor * uniform.width))
            proportional = min(whole.heads, round(uniform.heads * width / uniform.width))
            for heads in sorted({uniform.heads, proportional}):
                for share in _STEMS if uniform.stem else (1.0,):
                    stem = tuple(
                        min(whole_stem, in_tiles(share * channels))
                        for channels, whole_stem in zip(uniform.stem, config.stem, strict=True)
                    )
                    yield Widths(max(1, round(depth * uniform.blocks)), heads, width, TILE, stem)


def _mlp_units_within(config: ViTConfig, outline: Widths, most: int) -> int:
    """The most hidden units in tiles, at most the teacher's; 0 when not one tile fits."""

    def size(units: int) -> int:
        return narrowed(config, replace(outline, mlp_units=units)).f32_bytes

    tile = size(2 * TILE) - size(TILE)
    tiles = (most - size(TILE)) // tile + 1
    return max(0, min(tiles, config.blocks[0].mlp_units // TILE)) * TILE
