"""Widths of each layer, chosen by importance for a budget: NViT's global ranking (arXiv 2110.04869).

From the whole model, what is worth least for what it costs goes first, until the rest fits: eight channels
of the residual stream, a head, eight hidden units of an MLP, or a whole block. Scores are the estimated
divergence that removing a unit causes, so those of different layers can be compared; costs are bytes or
milliseconds.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.surgery import Kept
from edvit_tf.build.widths import TILE
from edvit_tf.errors import PlanError
from edvit_tf.vit.config import BYTES_PER_FLOAT, BlockConfig, ViTConfig, weight_shapes

if TYPE_CHECKING:  # the smallest model is planned without TensorFlow
    from edvit_tf.build.importance import Importance


class Cost(Protocol):
    """What a model costs, as a sum over its blocks and the rest."""

    @property
    def unit(self) -> str:
        """What it is counted in."""

    def rest(self, config: ViTConfig) -> float:
        """Of all but the blocks; the config's blocks do not count."""

    def block(self, config: ViTConfig, block: BlockConfig, *, last: bool) -> float:
        """Of one block of a model of that width; the last one computes only the class token."""


def total(cost: Cost, config: ViTConfig) -> float:
    """The cost of a whole model."""
    last = len(config.blocks) - 1
    return cost.rest(config) + sum(
        cost.block(config, block, last=index == last) for index, block in enumerate(config.blocks)
    )


class Bytes:
    """Bytes of the parameters in f32."""

    @property
    def unit(self) -> str:
        """Bytes."""
        return "bytes"

    def rest(self, config: ViTConfig) -> float:
        """Stem, patch embedding, class token, positions, last norm and head."""
        shapes = weight_shapes(config).items()
        return BYTES_PER_FLOAT * sum(
            math.prod(shape) for name, shape in shapes if not name.startswith("block_")
        )

    def block(self, config: ViTConfig, block: BlockConfig, *, last: bool) -> float:  # noqa: ARG002
        """Two norms, four projections and an MLP, with their biases."""
        width, units, hidden = config.width, block.heads * config.head_size, block.mlp_units
        numbers = 4 * width + 4 * width * units + 3 * units + width + 2 * width * hidden + hidden + width
        return BYTES_PER_FLOAT * numbers


@dataclass(frozen=True, slots=True, order=True)
class _Removal:
    """Something that can go: its worth for each unit of cost that this saves, then what it is."""

    ratio: float
    kind: str
    block: int


def smallest(config: ViTConfig) -> ViTConfig:
    """The smallest model that can be cut: one block with one head and eight hidden units, eight channels."""
    hidden = min(block.mlp_units for block in config.blocks)
    return replace(config, width=min(TILE, config.width), blocks=(BlockConfig(1, min(TILE, hidden)),))


def check_budget(config: ViTConfig, cost: Cost, budget: float) -> None:
    """Refuse a budget that no widths meet.

    Raises:
        PlanError: the smallest model costs more; the sentence says how much.
    """
    least = total(cost, smallest(config))
    if least > budget:
        raise PlanError(
            f"No widths meet a budget of {budget:,.6g} {cost.unit} a sub-model: the smallest that can be cut "
            f"needs {least:,.6g}. Allow more (--budget; or --heads, --share)"
        )


def choose_within(importance: "Importance", config: ViTConfig, cost: Cost, budget: float) -> Kept:
    """The units to keep so that the model costs at most `budget`; widths are multiples of 8.

    Args:
        importance: of the model's units to the group.
        config: the whole model, with as many logits as the sub-model will have.
        cost: what the budget counts.
        budget: in the cost's unit.

    Returns:
        The kept units; a block of which nothing is kept is to be removed whole.

    Raises:
        PlanError: no widths meet the budget.
    """
    check_budget(config, cost, budget)
    ranking = _Ranking(importance, config, cost)
    while ranking.cost > budget:
        ranking.remove(min(ranking.removals()))
    return ranking.kept()


class _Ranking:
    """How many of each layer's units are left, the worthiest of them, and what the model costs."""

    def __init__(self, importance: "Importance", config: ViTConfig, cost: Cost) -> None:
        self._config, self._cost = config, cost
        self._scores = {("residual", 0): importance.residual}
        self._left = {("residual", 0): config.width}
        for index, block in enumerate(config.blocks):
            self._scores |= {("heads", index): importance.heads[index], ("mlp", index): importance.mlp[index]}
            self._left |= {("heads", index): block.heads, ("mlp", index): block.mlp_units}
        self._order = {key: np.argsort(-scores, kind="stable") for key, scores in self._scores.items()}
        self._blocks = list(range(len(config.blocks)))
        self._now = config
        self.cost = total(cost, config)

    def removals(self) -> Iterator[_Removal]:
        """Everything that can go next."""
        kinds = [("residual", 0)] + [(kind, block) for block in self._blocks for kind in ("heads", "mlp")]
        for kind, block in kinds:
            rest = self._smaller(kind, block)
            if rest is not None:
                worth = self._worth(kind, block, rest, self._left[kind, block])
                yield self._removal(worth, kind, block)
        if len(self._blocks) > 1:
            for block in self._blocks:
                worth = sum(self._worth(kind, block, 0, self._left[kind, block]) for kind in ("heads", "mlp"))
                yield self._removal(worth, "block", block)

    def remove(self, removal: _Removal) -> None:
        """Take it out."""
        if removal.kind == "block":
            self._blocks.remove(removal.block)
        else:
            rest = self._smaller(removal.kind, removal.block)
            assert rest is not None  # noqa: S101  it was offered
            self._left[removal.kind, removal.block] = rest
        blocks = (BlockConfig(self._left["heads", b], self._left["mlp", b]) for b in self._blocks)
        self._now = replace(self._config, width=self._left["residual", 0], blocks=tuple(blocks))
        self.cost = total(self._cost, self._now)

    def kept(self) -> Kept:
        """The units that are left."""

        def units(kind: str, block: int) -> NDArray[np.intp]:
            return np.sort(self._order[kind, block][: self._left[kind, block]])

        none = np.zeros(0, np.intp)
        blocks = range(len(self._config.blocks))
        return Kept(
            units("residual", 0),
            tuple(units("heads", block) if block in self._blocks else none for block in blocks),
            tuple(units("mlp", block) if block in self._blocks else none for block in blocks),
        )

    def _smaller(self, kind: str, block: int) -> int | None:
        """How many units are left when the next ones go; None when none may."""
        left = self._left[kind, block]
        if kind == "heads":
            return left - 1 if left > 1 else None
        return (left - 1) // TILE * TILE if left > TILE else None

    def _worth(self, kind: str, block: int, start: int, stop: int) -> float:
        """What the units from `start` to `stop` in the order of their scores are worth."""
        return float(self._scores[kind, block][self._order[kind, block][start:stop]].sum())

    def _removal(self, worth: float, kind: str, block: int) -> _Removal:
        saved = self.cost - self._without(kind, block)
        # What saves nothing goes last; it may still make room for what does.
        return _Removal(worth / saved if saved > 0 else float("inf"), kind, block)

    def _without(self, kind: str, block: int) -> float:
        """What the model costs when it goes."""
        config = self._now
        if kind == "residual":
            rest = self._smaller(kind, 0)
            assert rest is not None  # noqa: S101  the caller looked
            return total(self._cost, replace(config, width=rest))
        index = self._blocks.index(block)
        last = index == len(self._blocks) - 1
        before = self._cost.block(config, config.blocks[index], last=last)
        if kind == "block":
            if not last:
                return self.cost - before
            ahead = config.blocks[index - 1]  # it will be the last one then
            change = self._cost.block(config, ahead, last=True) - self._cost.block(config, ahead, last=False)
            return self.cost - before + change
        rest = self._smaller(kind, block)
        assert rest is not None  # noqa: S101  the caller looked
        sizes = {"heads": self._left["heads", block], "mlp_units": self._left["mlp", block]}
        sizes["heads" if kind == "heads" else "mlp_units"] = rest
        return self.cost - before + self._cost.block(config, BlockConfig(**sizes), last=last)
