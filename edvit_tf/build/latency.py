"""What a ViT takes in the interpreter, predicted from a few that were measured. No TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.layerwise import total
from edvit_tf.build.widths import TILE, Widths, narrowed
from edvit_tf.vit.config import BlockConfig, ViTConfig

_MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Milliseconds:
    """A linear model: so much for any model, for a block, and for a million multiply-accumulates.

    Attributes:
        model, each_block: milliseconds.
        dense: milliseconds for a million of those in products with weights.
        attention: the same for those in products of two activations.
    """

    model: float
    each_block: float
    dense: float
    attention: float

    @property
    def unit(self) -> str:
        """Milliseconds."""
        return "milliseconds"

    def rest(self, config: ViTConfig) -> float:
        """Of all but the blocks."""
        return float(np.dot(self._coefficients(), _rest(config)))

    def block(self, config: ViTConfig, block: BlockConfig, *, last: bool) -> float:
        """Of one block."""
        return float(np.dot(self._coefficients(), _block(config, block, last=last)))

    def _coefficients(self) -> tuple[float, float, float, float]:
        return (self.model, self.each_block, self.dense, self.attention)


def measured_sizes(config: ViTConfig, widths: Widths) -> list[ViTConfig]:
    """The models to measure: around the uniform sub-model of these widths, each dimension changed on its own.

    Args:
        config: the teacher's.
        widths: of the uniform sub-model.
    """
    base = narrowed(config, widths)
    block, depth = base.blocks[0], len(base.blocks)
    fewer = max(1, depth // 2)
    found = [
        base,
        replace(base, width=2 * base.width),
        replace(base, width=max(TILE, base.width // 2 // TILE * TILE)),
        replace(base, blocks=(BlockConfig(2 * block.heads, block.mlp_units),) * depth),
        replace(base, blocks=(BlockConfig(block.heads, 2 * block.mlp_units),) * depth),
        replace(base, blocks=(BlockConfig(4 * block.heads, block.mlp_units),) * fewer),
        replace(base, blocks=(block,) * fewer),
        replace(base, blocks=(block,)),
    ]
    return list(dict.fromkeys(found))


def fit(configs: Sequence[ViTConfig], milliseconds: Sequence[float]) -> Milliseconds:
    """Least squares of the relative errors, no coefficient below 0."""
    times = np.asarray(milliseconds, np.float64)
    rows = np.asarray([_features(config) for config in configs]) / times[:, np.newaxis]
    used = list(range(rows.shape[1]))
    while True:
        coefficients = np.zeros(rows.shape[1])
        coefficients[used] = np.linalg.lstsq(rows[:, used], np.ones(len(times)), rcond=None)[0]
        if (coefficients >= 0).all():
            return Milliseconds(*(float(number) for number in coefficients))
        used.remove(int(coefficients.argmin()))


def worst_error(found: Milliseconds, configs: Sequence[ViTConfig], milliseconds: Sequence[float]) -> float:
    """The largest relative error of a prediction."""
    return max(abs(total(found, c) / ms - 1) for c, ms in zip(configs, milliseconds, strict=True))


def _features(config: ViTConfig) -> NDArray[np.float64]:
    last = len(config.blocks) - 1
    blocks = [_block(config, block, last=index == last) for index, block in enumerate(config.blocks)]
    return np.asarray(np.sum([_rest(config), *blocks], axis=0), np.float64)


def _rest(config: ViTConfig) -> NDArray[np.float64]:
    return np.asarray([1, 0, config.embedding_macs / _MILLION, 0])


def _block(config: ViTConfig, block: BlockConfig, *, last: bool) -> NDArray[np.float64]:
    """As `ViTConfig.macs` counts."""
    tokens, units = config.tokens, block.heads * config.head_size
    queries = 1 if last else tokens
    dense = config.width * ((2 * queries + 2 * tokens) * units + 2 * queries * block.mlp_units)
    return np.asarray([0, 1, dense / _MILLION, 2 * queries * tokens * units / _MILLION])
