"""What the Edge TPU computes: the published list of operators with its limits, and the user's compiler.

The list is that of coral.ai/docs/edgetpu/models-intro. The compiler is a closed program for x86-64 that no
package registry has; it is called where it is.
"""

import math
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from edvit_converters.operators import Operand, Operator
from edvit_tf.errors import ModelError

COMPILER = "edgetpu_compiler"
_TYPES = ("INT8", "UINT8", "INT32")  # INT32: biases, and where to slice or pad
_LONGEST_SOFTMAX = 16_000
_TIMEOUT_SECONDS = 600.0
_BATCH = 0


def refusal(step: Operator) -> str:
    """Why the Edge TPU does not compute an operator; empty when it does."""
    if step.name not in _RULES:
        return "not in the Edge TPU's list of operators"
    runtime = [operand for operand in (*step.inputs, *step.outputs) if not operand.constant]
    for operand in (*step.inputs, *step.outputs):
        if operand.dtype not in _TYPES or (operand in runtime and operand.dtype == "INT32"):
            return f"{operand.dtype}: the Edge TPU computes in 8-bit integers alone"
    for operand in runtime:
        if any(size > 1 for size in operand.shape[:-3]):
            return f"shape {list(operand.shape)}: only the three innermost dimensions may be above 1"
    return _RULES[step.name](step)


def compile_model(flatbuffer: bytes) -> bytes | None:
    """Compile a fully quantised flatbuffer for the Edge TPU, or return None where there is no compiler.

    Raises:
        ModelError: the compiler fails, or leaves operators to the processor.
    """
    program = shutil.which(COMPILER)
    if program is None:
        return None
    with tempfile.TemporaryDirectory(prefix="edvit-tf-") as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(flatbuffer)
        command = [program, "--show_operations", "--out_dir", name, str(folder / "model.tflite")]
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise ModelError(
                f"{COMPILER} did not end in {_TIMEOUT_SECONDS:g} s.", code="model.compiler"
            ) from None
        made = folder / "model_edgetpu.tflite"
        if ended.returncode != 0 or not made.is_file():
            said = (ended.stderr.strip() or ended.stdout.strip() or "it said nothing").splitlines()[-1]
            raise ModelError(f"{COMPILER} failed: {said}", code="model.compiler")
        return made.read_bytes()


def _any(step: Operator) -> str:  # noqa: ARG001
    return ""


def _plain(step: Operator) -> str:
    return "it has a fused activation function" if step.activation else ""


def _concatenation(step: Operator) -> str:
    constants = [operand for operand in step.inputs if operand.constant]
    if constants and (len(step.inputs) > 2 or any(any(operand.content) for operand in constants)):
        return "a constant is joined on, which must be one of two parts and all zeros"
    return _plain(step)


def _dilated(step: Operator) -> str:
    same = step.options.dilationWFactor == step.options.dilationHFactor
    return "" if same else "its dilations in x and y differ"


def _fully_connected(step: Operator) -> str:
    if step.options.weightsFormat:
        return "its weights are not in the default format"
    if not step.inputs[1].constant:
        return "its weights are not constant"
    rows = math.prod(step.outputs[0].shape[:-1])
    return "" if rows == 1 else f"its output has {rows} rows, and may have one"


def _axes(operand: Operand) -> list[int]:
    return [int(axis) for axis in np.frombuffer(operand.content, np.int32)]


def _reduced(step: Operator) -> str:
    taken, rank = step.inputs[0], len(step.inputs[0].shape)
    axes = [axis % rank for axis in _axes(step.inputs[1])]
    if _BATCH in axes and rank == 4:
        return "it reduces the batch dimension"
    if step.name == "MEAN" and rank - 1 in axes and taken.shape[-1] % 4:
        return "it averages channels whose number is no multiple of 4"
    return ""


def _padded(step: Operator) -> str:
    borders = np.frombuffer(step.inputs[1].content, np.int32)
    return "it pads the batch dimension" if len(step.inputs[0].shape) == 4 and any(borders[:2]) else ""


def _softmax(step: Operator) -> str:
    shape = step.inputs[0].shape
    if math.prod(shape[:-1]) != 1 or shape[-1] > _LONGEST_SOFTMAX:
        return f"shape {list(shape)}: one row of at most {_LONGEST_SOFTMAX:,} numbers is taken"
    return ""


def _strided(step: Operator) -> str:
    if any(stride != 1 for stride in _axes(step.inputs[3])):
        return "its strides are not all 1"
    if step.options.ellipsisMask or step.options.newAxisMask:
        return "it has an ellipsis or a new axis"
    return ""


_UNLIMITED = (
    "ADD", "EXPAND_DIMS", "L2_NORMALIZATION", "LOGISTIC", "MAXIMUM", "MINIMUM", "MUL", "PRELU",
    "QUANTIZE", "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SLICE", "SPACE_TO_DEPTH", "SPLIT", "SQUEEZE", "SUB",
    "SQUARED_DIFFERENCE", "TANH", "TRANSPOSE", "TRANSPOSE_CONV", "PACK",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
)  # fmt: skip
_RULES: Mapping[str, Callable[[Operator], str]] = {
    **dict.fromkeys(_UNLIMITED, _any),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), _plain),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), _dilated),
    **dict.fromkeys(("MEAN", "REDUCE_MAX", "REDUCE_MIN", "SUM"), _reduced),
    "CONCATENATION": _concatenation,
    "FULLY_CONNECTED": _fully_connected,
    "PAD": _padded,
    "SOFTMAX": _softmax,
    "STRIDED_SLICE": _strided,
}
