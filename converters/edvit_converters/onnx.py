"""A ViT as an ONNX graph, only to be measured: what somebody would run who does not split the model."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from edvit_tf.vit.checkpoint import Checkpoint, Weights
from edvit_tf.vit.config import ViTConfig
from edvit_tf.vit.layers import NORM_EPSILON

_OPSET = 20  # the first with Gelu


def sessions(model: Checkpoint, folder: Path, threads: int) -> dict[str, tuple[Any, int]]:
    """The model in ONNX Runtime, `f32` and `int8` as its own dynamic quantiser makes it, and their bytes.

    The files are written to `folder`.
    """
    files = {name: folder / f"{name}.onnx" for name in ("f32", "int8")}
    onnx.save(to_onnx(model.config, model.weights), files["f32"])
    quantize_dynamic(
        files["f32"], files["int8"], weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"]
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return {
        name: (
            onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]),
            file.stat().st_size,
        )
        for name, file in files.items()
    }


def to_onnx(config: ViTConfig, weights: Weights) -> Any:
    """Make an ONNX model of a ViT: `image` f32 [1, c, h, w], normalised, to `feature` and `logits`, both f32.

    The last block computes only the class token, as in ours, so that runtimes and not graphs are compared.
    """
    graph = _Graph(config, weights)
    image = config.image
    shape = [1, image.channels, image.height, image.width]
    feature = graph.norm(graph.blocks(graph.tokens("image")), "final_norm")
    logits = graph.dense(feature, "head")
    made = helper.make_graph(
        graph.nodes,
        "vit",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info(feature, TensorProto.FLOAT, [1, 1, config.width]),
            helper.make_tensor_value_info(logits, TensorProto.FLOAT, [1, 1, config.classes]),
        ],
        graph.constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    return model


class _Graph:
    """Nodes and constants as they come; every method gives the name of its output."""

    def __init__(self, config: ViTConfig, weights: Weights) -> None:
        self._config = config
        self._weights = weights
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def tokens(self, image: str) -> str:
        """The class token and the patches, positions added, [1, tokens, width]."""
        config, weights = self._config, self._weights
        kernel = self._constant(weights["patch_embedding/kernel"].transpose(3, 2, 0, 1))
        bias = self._constant(weights["patch_embedding/bias"])
        side = [config.patch, config.patch]
        grid = self._node("Conv", image, kernel, bias, kernel_shape=side, strides=side)
        flat = self._node("Reshape", grid, self._constant(np.array([1, config.width, -1])))
        patches = self._node("Transpose", flat, perm=[0, 2, 1])
        class_token = self._constant(weights["class_token/token"].reshape(1, 1, -1))
        stream = self._node("Concat", class_token, patches, axis=1)
        positions = self._constant(weights["position_embedding/positions"][np.newaxis])
        return self._node("Add", stream, positions)

    def blocks(self, stream: str) -> str:
        """All encoder blocks; [1, 1, width] after the last one."""
        last = len(self._config.blocks) - 1
        for index in range(last + 1):
            stream = self._block(stream, index, class_token_only=index == last)
        return stream

    def norm(self, tokens: str, layer: str) -> str:
        """Layer normalisation over the last axis."""
        gamma, beta = (self._constant(self._weights[f"{layer}/{part}"]) for part in ("gamma", "beta"))
        return self._node("LayerNormalization", tokens, gamma, beta, epsilon=NORM_EPSILON)

    def dense(self, tokens: str, layer: str) -> str:
        """A product with the layer's kernel, and its bias."""
        kernel, bias = (self._constant(self._weights[f"{layer}/{part}"]) for part in ("kernel", "bias"))
        return self._node("Add", self._node("MatMul", tokens, kernel), bias)

    def _block(self, stream: str, index: int, *, class_token_only: bool) -> str:
        name = f"block_{index}"
        keys = queries = self.norm(stream, f"{name}_attention_norm")
        if class_token_only:
            queries, stream = self._first(queries), self._first(stream)
        mixed = self._attention(queries, keys, index)
        stream = self._node("Add", stream, self.dense(mixed, f"{name}_projection"))
        hidden = self.dense(self.norm(stream, f"{name}_mlp_norm"), f"{name}_mlp_up")
        return self._node("Add", stream, self.dense(self._node("Gelu", hidden), f"{name}_mlp_down"))

    def _attention(self, queries: str, keys: str, index: int) -> str:
        name = f"block_{index}"
        scale = self._constant(np.float32(self._config.head_size**-0.5))
        query = self._node("Mul", self.dense(queries, f"{name}_query"), scale)
        query = self._heads(query, index, [0, 2, 1, 3])
        key = self._heads(self.dense(keys, f"{name}_key"), index, [0, 2, 3, 1])
        value = self._heads(self.dense(keys, f"{name}_value"), index, [0, 2, 1, 3])
        scores = self._node("Softmax", self._node("MatMul", query, key), axis=-1)
        mixed = self._node("Transpose", self._node("MatMul", scores, value), perm=[0, 2, 1, 3])
        units = self._config.blocks[index].heads * self._config.head_size
        return self._node("Reshape", mixed, self._constant(np.array([1, -1, units])))

    def _heads(self, tokens: str, index: int, order: list[int]) -> str:
        shape = np.array([1, -1, self._config.blocks[index].heads, self._config.head_size])
        return self._node("Transpose", self._node("Reshape", tokens, self._constant(shape)), perm=order)

    def _first(self, tokens: str) -> str:
        bounds = (self._constant(np.array([number])) for number in (0, 1, 1))
        return self._node("Slice", tokens, *bounds)

    def _constant(self, value: NDArray[Any] | np.generic) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name
