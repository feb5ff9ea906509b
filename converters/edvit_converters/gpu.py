"""What LiteRT's GPU delegate computes, by its own list and limits (tensorflow/lite/tools/versioning).

TensorFlow's analyser promises the same, but the one in TensorFlow 2.21's wheel finds nothing to complain of
in any flatbuffer.
"""

from collections.abc import Callable, Mapping

from edvit_converters.operators import Operator

_FLOATS = ("FLOAT32", "FLOAT16")
_MOST_DIMENSIONS = 4


def refusal(step: Operator) -> str:
    """Why the GPU delegate leaves an operator to the processor; empty when it does not."""
    if step.name not in _RULES:
        return "not in the GPU delegate's list of operators"
    for operand in (*step.inputs, *step.outputs):
        if not operand.constant and len(operand.shape) > _MOST_DIMENSIONS:
            return f"shape {list(operand.shape)}: it takes {_MOST_DIMENSIONS} dimensions at most"
    return _RULES[step.name](step)


def _any(step: Operator) -> str:  # noqa: ARG001
    return ""


def _cast(step: Operator) -> str:
    types = (step.inputs[0].dtype, step.outputs[0].dtype)
    both = all(dtype in ("FLOAT32", "INT32") for dtype in types)
    boolean = "BOOL" in types and any(dtype in _FLOATS for dtype in types)
    return "" if both or boolean else f"{types[0]} to {types[1]}: it casts FLOAT32, INT32 and BOOL"


def _weighted(step: Operator) -> str:
    taken, kernel = step.inputs[:2]
    if taken.dtype in _FLOATS and kernel.constant and kernel.dtype not in _FLOATS:
        return f"{kernel.dtype} weights with {taken.dtype} inputs: it does not round as it goes"
    return ""


def _fully_connected(step: Operator) -> str:
    if step.options.weightsFormat:
        return "its weights are not in the default format"
    if step.inputs[0].constant:
        return "its input is a constant"
    if step.options.keepNumDims and len(step.inputs[0].shape) != len(step.outputs[0].shape):
        return "its output has another number of dimensions"
    return _weighted(step)


def _mul(step: Operator) -> str:
    one, other = (operand.shape for operand in step.inputs)
    pairs = list(zip(one, other, strict=True)) if len(one) == len(other) else []
    if any(a < b for a, b in pairs) and any(a > b for a, b in pairs):
        return f"shapes {list(one)} and {list(other)}: one must be nowhere smaller than the other"
    return ""


def _sliced(step: Operator) -> str:
    shape = step.inputs[0].shape
    if len(shape) not in (3, 4):
        return f"shape {list(shape)}: it slices 3 or 4 dimensions"
    if any(getattr(step.options, mask, 0) for mask in ("ellipsisMask", "newAxisMask", "shrinkAxisMask")):
        return "it has an ellipsis, a new axis or drops one"
    return ""


def _axes_known(step: Operator) -> str:
    return "" if step.inputs[1].constant else "its axes are not constant"


def _two(step: Operator) -> str:
    return "" if len(step.inputs) == 2 else f"{len(step.inputs)} inputs: it takes two"


_UNLIMITED = (
    "ABS", "AVERAGE_POOL_2D", "CONCATENATION", "COS", "DEPTH_TO_SPACE", "DEQUANTIZE", "DIV", "ELU",
    "EQUAL", "EXP", "FLOOR", "FLOOR_DIV", "FLOOR_MOD", "GELU", "GREATER", "GREATER_EQUAL",
    "HARD_SWISH", "LEAKY_RELU", "LESS", "LESS_EQUAL", "LOG", "LOGISTIC", "MAX_POOL_2D", "MAXIMUM",
    "MINIMUM", "MIRROR_PAD", "NEG", "NOT_EQUAL", "PACK", "PAD", "PADV2", "POW", "PRELU", "QUANTIZE",
    "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR",
    "RSQRT", "SIGN", "SIN", "SOFTMAX", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQRT", "SQUARE",
    "SQUARED_DIFFERENCE", "SUB", "TANH", "TILE", "TRANSPOSE",
)  # fmt: skip
_RULES: Mapping[str, Callable[[Operator], str]] = {
    **dict.fromkeys(_UNLIMITED, _any),
    **dict.fromkeys(("ADD", "ADD_N", "BATCH_MATMUL"), _two),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"), _weighted),
    **dict.fromkeys(("MEAN", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "SUM"), _axes_known),
    **dict.fromkeys(("SLICE", "STRIDED_SLICE"), _sliced),
    "CAST": _cast,
    "FULLY_CONNECTED": _fully_connected,
    "MUL": _mul,
}
