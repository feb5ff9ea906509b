"""A finished flatbuffer without what no interpreter needs: tensors' names, and what it holds twice."""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16


def compact(flatbuffer: bytes) -> bytes:
    """Make the same model in fewer bytes: the signature names inputs and outputs, tensors need no names."""
    model = unpack(flatbuffer)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.name = None
            if tensor.quantization is not None:
                tensor.quantization.min = tensor.quantization.max = None
    return pack(model, len(flatbuffer))


def unpack(flatbuffer: bytes) -> schema.ModelT:
    """The model as objects that can be changed, its constants inside of it."""
    model = schema.ModelT.InitFromPackedBuf(flatbuffer, 0)
    for buffer in model.buffers:
        _move_inside(buffer, flatbuffer)
    return model


def pack(model: schema.ModelT, size: int = 1024) -> bytes:
    """The flatbuffer of a model; `size` is about how many bytes it will take."""
    builder = _SharingBuilder(size)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


class _SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """Writes equal vectors once; the zero points of all weights' channels are a tenth of an int4 model."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: NDArray[np.generic]) -> int:  # noqa: N802 (the library's name)
        """Return the place of a vector with these numbers, 16 bytes aligned, as constants must be."""
        key = (x.dtype.str, x.tobytes())
        if key not in self._written:
            self.Prep(_ALIGNMENT, x.nbytes)
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]


def _move_inside(buffer: schema.BufferT, flatbuffer: bytes) -> None:
    """Take in a constant that the quantiser wrote behind the flatbuffer proper."""
    if buffer.offset > 1:
        content = flatbuffer[buffer.offset : buffer.offset + buffer.size]
        buffer.data = np.frombuffer(content, np.uint8)
        buffer.offset = buffer.size = 0
