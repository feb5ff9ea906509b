"""The kernels of a flatbuffer in int4: each rounded to suit what it reads, the most sensitive left in int8.

It works on flatbuffers whose tensors still have names: the output of a product bears the layer's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edvit_converters.compact import pack, unpack
from edvit_converters.gptq import LEVELS, Array, Rounded, round_kernel
from edvit_tf.runtime.check import cosine
from edvit_tf.runtime.ensemble import run_many
from edvit_tf.runtime.interpreter import traced

Images = NDArray[np.uint8]

_KEPT_SHARE = 0.03  # of the int4 kernels' bytes: what weights may take more that stay int8
_JUDGED_IMAGES = 32
_LEARNT_ROWS = 20_000  # that a kernel's rounding is fitted to; more changed nothing


@dataclass(frozen=True, slots=True)
class _Product:
    """A FULLY_CONNECTED: its name, the numbers of the tensors that it reads, and its constant kernel."""

    name: str
    taken: int
    kernel: schema.TensorT
    content: schema.BufferT

    @property
    def weights(self) -> int:
        return int(np.prod(self.kernel.shape))


def round_products(flatbuffer: bytes, images: Images) -> dict[str, Rounded]:
    """Round the kernels of an f32 flatbuffer for pictures uint8 [n, h, w, c] like those that it will see.

    Returns:
        By the name of the product those that are to be stored in int4. The others, at most `_KEPT_SHARE` of
        bytes more, are those whose rounding alone takes most from the feature's cosine for a byte.
    """
    moments = _moments(flatbuffer, images)
    rounded = {
        product.name: round_kernel(_numbers(product), moments[product.name])
        for product in _products(unpack(flatbuffer))
    }
    kept = _most_sensitive(flatbuffer, rounded, images[:: -(-len(images) // _JUDGED_IMAGES)])
    return {name: kernel for name, kernel in rounded.items() if name not in kept}


def store_rounded(flatbuffer: bytes, rounded: Mapping[str, Rounded]) -> bytes:
    """Write levels and scales into a flatbuffer in which these kernels are int4 already."""
    model = unpack(flatbuffer)
    for product in _products(model):
        if product.name in rounded:
            product.content.data = _packed(rounded[product.name].levels)
            product.kernel.quantization.scale = rounded[product.name].scale
    return pack(model, len(flatbuffer))


def revive_scales(flatbuffer: bytes) -> bytes:
    """Give outputs whose weights are all 0 a scale of 1 in int4: the quantiser's 0 no interpreter takes."""
    model, changed = unpack(flatbuffer), False
    for product in _products(model):
        scale = np.array(product.kernel.quantization.scale)
        dead = scale < np.finfo(np.float32).tiny
        if product.kernel.type == schema.TensorType.INT4 and dead.any():
            levels = _unpacked(product)
            levels[dead] = 0
            product.content.data = _packed(levels)
            product.kernel.quantization.scale = np.where(dead, np.float32(1), scale)
            changed = True
    return pack(model, len(flatbuffer)) if changed else flatbuffer


def _packed(levels: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Two levels in a byte, the first one in its lower half."""
    halves = levels.ravel().astype(np.uint8) & 0x0F
    lower, upper = halves[::2], np.append(halves[1::2], np.zeros(halves.size % 2, np.uint8))
    return np.asarray(lower | upper << 4, np.uint8)


def _unpacked(product: _Product) -> NDArray[np.int8]:
    content = np.asarray(product.content.data, np.uint8)
    halves = np.stack([content & 0x0F, content >> 4], axis=1).ravel()[: product.weights]
    levels = halves.astype(np.int8)
    levels[levels > LEVELS] -= 16
    return levels.reshape(product.kernel.shape)


def _moments(flatbuffer: bytes, images: Images) -> dict[str, NDArray[np.float64]]:
    """Σ x·xᵀ over the rows x that each product reads, by its name."""
    products = _products(unpack(flatbuffer))
    taken = {product.name: product.taken for product in products}
    found: dict[str, NDArray[np.float64]] = {}
    rows = 0
    for tensors in traced(flatbuffer, images, tuple(taken.values())):
        for name, index in taken.items():
            read = tensors[index].reshape(-1, tensors[index].shape[-1]).astype(np.float64)
            found[name] = found.get(name, 0.0) + read.T @ read
        rows += max(tensor.size // tensor.shape[-1] for tensor in tensors.values())
        if rows >= _LEARNT_ROWS:
            break
    return found


def _most_sensitive(flatbuffer: bytes, rounded: Mapping[str, Rounded], images: Images) -> frozenset[str]:
    truth = run_many(flatbuffer, images).features
    places = {product.name: product.kernel.buffer for product in _products(unpack(flatbuffer))}

    def error(names: frozenset[str]) -> float:
        values = {places[name]: rounded[name].values for name in names}
        return 1 - cosine(run_many(_with_values(flatbuffer, values), images).features, truth)

    everything = frozenset(rounded)
    whole = error(everything)
    weights = {name: kernel.levels.size for name, kernel in rounded.items()}
    gain = {name: (whole - error(everything - {name})) / weights[name] for name in sorted(rounded)}
    left = _KEPT_SHARE * sum(weights.values())
    kept = set()
    for name in sorted(gain, key=lambda name: -gain[name]):
        if gain[name] > 0 and weights[name] <= left:
            kept.add(name)
            left -= weights[name]
    return frozenset(kept)


def _with_values(flatbuffer: bytes, values: Mapping[int, Array]) -> bytes:
    """The f32 flatbuffer with other numbers in some buffers, written in place: unpacking takes seconds."""
    changed = bytearray(flatbuffer)
    model = schema.Model.GetRootAs(changed)
    for number, array in values.items():
        model.Buffers(number).DataAsNumpy()[:] = np.frombuffer(array.tobytes(), np.uint8)
    return bytes(changed)


def _products(model: schema.ModelT) -> list[_Product]:
    graph = model.subgraphs[0]
    found = []
    for step in graph.operators:
        if model.operatorCodes[step.opcodeIndex].builtinCode == schema.BuiltinOperator.FULLY_CONNECTED:
            kernel = graph.tensors[step.inputs[1]]
            name = graph.tensors[step.outputs[0]].name.decode()
            found.append(_Product(name, int(step.inputs[0]), kernel, model.buffers[kernel.buffer]))
    return found


def _numbers(product: _Product) -> Array:
    content = np.asarray(product.content.data, np.uint8).tobytes()
    return np.frombuffer(content, np.float32).reshape(product.kernel.shape)
