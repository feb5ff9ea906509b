"""The operators of a flatbuffer, with what they read and write: enough to judge where each can run."""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edvit_tf.errors import ModelError

_NAMES = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
_TYPES = {number: name for name, number in vars(schema.TensorType).items() if isinstance(number, int)}


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor: its shape, its type as in the schema (`INT8`), and the bytes of a constant."""

    shape: tuple[int, ...]
    dtype: str
    constant: bool
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Operator:
    """One step of the graph; `options` is the schema's object for its kind, or None."""

    name: str
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    options: Any

    @property
    def activation(self) -> int:
        """The activation function that is fused into it, 0 for none."""
        return int(getattr(self.options, "fusedActivationFunction", 0))


def operators(flatbuffer: bytes) -> list[Operator]:
    """Every operator of the first graph, in its order.

    Raises:
        ModelError: this is no flatbuffer, or a damaged one.
    """
    try:
        return _operators(flatbuffer)
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise ModelError("This is no whole TFLite flatbuffer: make it again.", code="model.load") from error


def _operators(flatbuffer: bytes) -> list[Operator]:
    if not schema.Model.ModelBufferHasIdentifier(flatbuffer, 0):
        raise ValueError("another kind of file")
    model = schema.ModelT.InitFromPackedBuf(flatbuffer, 0)
    graph = model.subgraphs[0]

    def operand(index: int) -> Operand:
        tensor = graph.tensors[index]
        data = model.buffers[tensor.buffer].data
        constant = data is not None and len(data) > 0
        content = np.asarray(data, np.uint8).tobytes() if constant else b""
        shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
        return Operand(shape, _TYPES[tensor.type], constant, content)

    return [
        Operator(
            _NAMES[model.operatorCodes[step.opcodeIndex].builtinCode],
            tuple(operand(index) for index in step.inputs if index >= 0),
            tuple(operand(index) for index in step.outputs),
            step.builtinOptions,
        )
        for step in graph.operators
    ]
