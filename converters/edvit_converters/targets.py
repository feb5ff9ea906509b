"""What a flatbuffer is made for: which formats suit it, and which operators it would not run itself."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from edvit_converters import edge_tpu, gpu
from edvit_converters.operators import Operator, operators
from edvit_tf.errors import ModelError, UsageError

TARGETS = ("any", "cpu", "gpu", "browser", "coral")

_ALL = ("f32", "f16", "int8", "int8-dynamic", "int4-dynamic", "int8-full")
_FORMATS: Mapping[str, tuple[str, ...]] = {
    "any": _ALL,
    "cpu": _ALL,
    # It computes in floats: what the CPU's kernels round as they go it does not take.
    "gpu": ("f16", "f32"),
    "browser": ("int8-dynamic", "f32", "f16"),
    # Beside its own it takes the processors' formats: what another device can take over with.
    "coral": ("edgetpu", *_ALL),
}

# At the graph's ends, where the processor holds the numbers anyway.
_BORDER = ("CAST", "QUANTIZE", "DEQUANTIZE")

# What XNNPACK takes, by which LiteRT's web runtime computes as WebAssembly (the delegate's README).
_XNNPACK = (
    "ABS", "ADD", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CAST", "CEIL", "CONCATENATION", "CONV_2D",
    "COPY", "COS", "DEPTH_TO_SPACE", "DEPTHWISE_CONV_2D", "DEQUANTIZE", "DIV", "ELU", "EXP",
    "EXPAND_DIMS", "FLOOR", "FULLY_CONNECTED", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC",
    "MAX_POOL_2D", "MAXIMUM", "MEAN", "MINIMUM", "MUL", "NEG", "PAD", "PRELU", "QUANTIZE", "RELU",
    "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR", "ROUND", "RSQRT", "SIN", "SLICE",
    "SOFTMAX", "SPACE_TO_DEPTH", "SPLIT", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "STRIDED_SLICE",
    "SUB", "SUM", "TANH", "TRANSPOSE", "TRANSPOSE_CONV",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Placement:
    """Operators of one kind that share a fate.

    Attributes:
        operator: as in the schema, `FULLY_CONNECTED`.
        count: how many.
        reason: why they would fall back to the processor; empty when they would not.
    """

    operator: str
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class TargetReport:
    """Where each operator of a flatbuffer would be computed on a target."""

    target: str
    placements: tuple[Placement, ...]

    @property
    def fallen_back(self) -> tuple[Placement, ...]:
        """Those that the target does not compute itself."""
        return tuple(placement for placement in self.placements if placement.reason)


def check_formats(target: str, formats: Iterable[str]) -> None:
    """Refuse before any work what a target cannot run.

    Raises:
        UsageError: there is no such target, or a format is not for it.
    """
    if target not in TARGETS:
        raise UsageError(
            f"There is no target {target!r}: choose one of {', '.join(TARGETS)}.", code="usage.target"
        )
    formats = tuple(formats)
    if target == "coral" and formats and "edgetpu" not in formats:
        alone = ",".join(formats)
        raise UsageError(f"{alone} is not supported for coral; use {alone},edgetpu", code="usage.target")
    for name in formats:
        if name not in _FORMATS[target]:
            instead = "--target coral" if name == "edgetpu" else _FORMATS[target][0]
            raise UsageError(f"{name} is not supported for {target}; use {instead}", code="usage.target")


def target_of(format_name: str, target: str) -> str:
    """What one variant of an export for a target is for: beside a Coral's own, the others are for anyone."""
    if format_name == "edgetpu":
        return "coral"
    return "any" if target == "coral" else target


def formats_for(target: str) -> tuple[str, ...]:
    """The formats that suit a target, the one to prefer first."""
    return _FORMATS[target]


def report(flatbuffer: bytes, target: str) -> TargetReport:
    """Say of every operator of a flatbuffer whether the target would compute it.

    Each by its published list of operators, shapes and types: `coral` by `edge_tpu.py`, `gpu` by `gpu.py`,
    the others by XNNPACK's.

    Raises:
        UsageError: there is no such target.
        ModelError: this is no whole flatbuffer.
    """
    check_formats(target, ())
    refusal = _REFUSALS.get(target, _cpu_refusal)
    found = Counter((step.name, refusal(step)) for step in operators(flatbuffer))
    return TargetReport(
        target, tuple(Placement(name, n, reason) for (name, reason), n in sorted(found.items()))
    )


def check_placed(flatbuffer: bytes, target: str) -> None:
    """Refuse a flatbuffer of which the target leaves more to the processor than to hand numbers in and out.

    Raises:
        ModelError: it does; the sentence names the operators.
    """
    inside = [
        placement for placement in report(flatbuffer, target).fallen_back if placement.operator not in _BORDER
    ]
    if inside:
        named = "; ".join(f"{one.count} {one.operator} ({one.reason})" for one in inside)
        raise ModelError(
            f"The flatbuffer would not run whole on {target}: {named}. Choose another format or target.",
            code="model.target",
        )


def _cpu_refusal(step: Operator) -> str:
    if step.name in _XNNPACK:
        return ""
    return "not in XNNPACK's list of operators: a reference kernel computes it, and the graph is cut there"


_REFUSALS: Mapping[str, Callable[[Operator], str]] = {"coral": edge_tpu.refusal, "gpu": gpu.refusal}
