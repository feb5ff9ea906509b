"""A ViT as the interpreter likes it: weights in, a TensorFlow function out, the same numbers as Keras's.

Every rewrite is exact but for rounding; what each gained is in docs/decisions/0040-the-converted-graph.md.
Training keeps its plain graph: nothing here is ever trained.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edvit_tf.vit.checkpoint import Weights
from edvit_tf.vit.config import STEM_STRIDE, ViTConfig
from edvit_tf.vit.keras import tf
from edvit_tf.vit.layers import NORM_EPSILON
from edvit_tf.vit.model import fold_normalisation

Array = NDArray[np.float32]

# Heads are sliced out of a product and put side by side again, which is quicker than to transpose them.
# XNNPACK concatenates five tensors at most.
_MOST_CONCATENATED = 5
# The converter copies a constant of the graph some twenty times; to save and load a variable takes it longer.
_LARGE_KERNEL = 1_000_000  # bytes
_SPARSE_WRITERS = ("_projection/kernel", "_mlp_down/kernel")


def is_sparse(weights: Weights) -> bool:
    """Whether pruning left zeros in the kernels that write to the stream; none are there by chance."""
    kernels = [weight for name, weight in weights.items() if name.endswith(_SPARSE_WRITERS)]
    return any(np.any(kernel == 0) for kernel in kernels)


def rewrite(config: ViTConfig, weights: Weights, *, centred: bool) -> Weights:
    """Fold into the weights all that can be computed before there is a picture.

    The picture's normalisation goes into the patch embedding, of a stem only the deviation; 1/√head_size into
    the query; scale and shift of each block's norms go into the layers that read them. With `centred` the
    residual stream is kept at mean 0, so that a norm need not subtract it; that would fill the zeros of a
    sparse model.
    """
    _, folded = fold_normalisation(config, weights)
    folded = dict(folded)
    for index in range(len(config.blocks)):
        for part in ("kernel", "bias"):
            name = f"block_{index}_query/{part}"
            folded[name] = folded[name] * np.float32(config.head_size**-0.5)
    return _fold_norms(config, _centre_stream(folded) if centred else folded)


def fold_in_place(config: ViTConfig, weights: Weights) -> Weights:
    """The same model in the same names, its kernels as they will be converted: training them fits that.

    The stream is centred; scale and shift of each block's norms are in the layers that read them, so the
    norms have 1 and 0.
    """
    folded = _fold_norms(config, _centre_stream(weights))
    norms = {name: weight for name, weight in weights.items() if name not in folded}
    return folded | {name: np.full_like(weight, name.endswith("/gamma")) for name, weight in norms.items()}


class Serving(tf.Module):  # type: ignore[misc]
    """The function from `image` uint8 [1, h, w, c] to `feature` f32 [1, width], `logits` f32 [1, classes].

    Tokens are f32 [1, 1, tokens, width] all the way: XNNPACK multiplies activations in 4-D only, and what
    stays in 4-D need not be reshaped. Large kernels are variables of the module.
    """

    def __init__(self, config: ViTConfig, weights: Weights, *, fuse: bool, centred: bool) -> None:
        """Take a model's weights.

        Args:
            config: of the model.
            weights: what `rewrite` gave.
            fuse: compute query, key and value in one product. Not for a format with one scale a tensor,
                because the three are of different sizes.
            centred: as `rewrite` was told.
        """
        super().__init__()
        self._config = config
        self._weights = weights
        self._fuse = fuse
        self._centred = centred
        self._variables: dict[str, Any] = {}

    def __call__(self, image: Any) -> dict[str, Any]:
        """The answer for one picture."""
        stream = self.tokens(image)
        for index in range(len(self._config.blocks)):
            stream = self.block(stream, index)
        gamma, beta = (self._weights[f"final_norm/{part}"] for part in ("gamma", "beta"))
        feature = self.normalised(tf.reshape(stream, [1, self._config.width])) * gamma + beta
        return {"feature": feature, "logits": self.dense(feature, "head")}

    def tokens(self, image: Any) -> Any:
        """The class token and the patches, positions added: the class token's are known beforehand."""
        weights = self._weights
        positions = weights["position_embedding/positions"]
        kernel, patch = weights["patch_embedding/kernel"], self._config.embedded_patch
        grid = tf.nn.conv2d(self._embedded(tf.cast(image, tf.float32)), kernel, patch, "VALID")
        patches = tf.reshape(grid, [1, 1, self._config.patches, self._config.width])
        class_token = weights["class_token/token"] + positions[0]
        added = positions[1:] + weights["patch_embedding/bias"]
        return tf.concat([class_token[np.newaxis, np.newaxis, np.newaxis], patches + added], axis=2)

    def _embedded(self, pixels: Any) -> Any:
        """What the patch embedding sees: the pixels, or what the stem makes of them."""
        if self._config.stem:
            pixels = pixels - np.asarray(self._config.mean, np.float32)
        for index in range(len(self._config.stem)):
            kernel, bias = (self._weights[f"stem_{index}/{part}"] for part in ("kernel", "bias"))
            pixels = tf.nn.relu(tf.nn.conv2d(pixels, kernel, STEM_STRIDE, "SAME") + bias)
        return pixels

    def block(self, stream: Any, index: int) -> Any:
        """One encoder block; the last one gives the class token alone."""
        name = f"block_{index}"
        tokens = self.normalised(stream)
        if index == len(self._config.blocks) - 1:
            stream = stream[:, :, :1]
            mixed = self._class_token_attention(tokens, index)
        else:
            mixed = self._attention(tokens, index)
        stream = stream + self.dense(mixed, f"{name}_projection")
        hidden = tf.nn.gelu(self.dense(self.normalised(stream), f"{name}_mlp_up"))
        return stream + self.dense(hidden, f"{name}_mlp_down")

    def normalised(self, tokens: Any) -> Any:
        """Mean 0 and variance 1; tokens of a centred stream have mean 0 already."""
        if not self._centred:
            tokens = tokens - tf.reduce_mean(tokens, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(tokens), axis=-1, keepdims=True)
        return tokens * tf.math.rsqrt(variance + NORM_EPSILON)

    def dense(self, tokens: Any, *layers: str) -> Any:
        """The layers' outputs side by side, by one product. The scope is what recipes choose by."""
        kernel = np.concatenate([self._weights[f"{layer}/kernel"] for layer in layers], axis=1)
        bias = np.concatenate([self._weights[f"{layer}/bias"] for layer in layers])
        return self._product(tokens, kernel, "_and_".join(layers)) + bias

    def _attention(self, tokens: Any, index: int) -> Any:
        """[1, 1, tokens, heads·head_size]: a few heads one by one, many in one product."""
        heads, size = self._config.blocks[index].heads, self._config.head_size
        parts = self._projected(tokens, index)
        if heads > _MOST_CONCATENATED:
            mixed = _mix(*(_all_heads(part, heads, size) for part in parts))
            return tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [1, 1, tokens.shape[2], heads * size])
        return _joined([_mix(*(part.head(head, size) for part in parts)) for head in range(heads)], axis=3)

    def _projected(self, tokens: Any, index: int) -> tuple["_Columns", "_Columns", "_Columns"]:
        """Query, key and value, each where it stands in a product."""
        query, key, value = (f"block_{index}_{part}" for part in ("query", "key", "value"))
        if not self._fuse:
            return (
                _Columns(self.dense(tokens, query), 0),
                _Columns(self.dense(tokens, key), 0),
                _Columns(self.dense(tokens, value), 0),
            )
        units = self._config.blocks[index].heads * self._config.head_size
        three = self.dense(tokens, query, key, value)
        return _Columns(three, 0), _Columns(three, units), _Columns(three, 2 * units)

    def _class_token_attention(self, tokens: Any, index: int) -> Any:
        """[1, 1, 1, heads·head_size]: with one query neither keys nor values need be made for all tokens.

        q·(x·K)ᵀ = (q·Kᵀ)·xᵀ and a·(x·V) = (a·x)·V. A key's bias adds the same to every token's weight, which
        softmax takes out again.
        """
        name, heads, size = f"block_{index}", self._config.blocks[index].heads, self._config.head_size
        key, value = (self._weights[f"{name}_{part}/kernel"] for part in ("key", "value"))
        query = _Columns(self.dense(tokens[:, :, :1], f"{name}_query"), 0)
        columns = [slice(head * size, (head + 1) * size) for head in range(heads)]
        wanted = [
            self._product(query.head(head, size), key[:, columns[head]].T, f"{name}_key_{head}")
            for head in range(heads)
        ]
        weights = tf.nn.softmax(tf.matmul(_joined(wanted, axis=2), tokens, transpose_b=True))
        seen = tf.matmul(weights, tokens)
        answers = [
            self._product(seen[:, :, head : head + 1], value[:, columns[head]], f"{name}_value_{head}")
            for head in range(heads)
        ]
        return _joined(answers, axis=3) + self._weights[f"{name}_value/bias"]

    def _product(self, tokens: Any, kernel: Array, name: str) -> Any:
        with tf.name_scope(name):
            return tf.matmul(tokens, self._held(np.ascontiguousarray(kernel), name))

    def _held(self, kernel: Array, name: str) -> Any:
        """A constant of the graph, or a variable where it is large: the converter makes it one at the end."""
        if kernel.nbytes < _LARGE_KERNEL:
            return kernel
        if name not in self._variables:  # the graph is traced twice
            with tf.init_scope():
                self._variables[name] = tf.Variable(kernel, trainable=False)
        return self._variables[name]


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of `product` f32 [1, 1, tokens, …] from `start` on: one of query, key and value."""

    product: Any
    start: int

    def head(self, head: int, size: int) -> Any:
        """[1, 1, tokens, head_size]."""
        start = self.start + head * size
        return self.product[:, :, :, start : start + size]


def _all_heads(part: _Columns, heads: int, size: int) -> Any:
    """[1, heads, tokens, head_size]."""
    columns = part.product[:, :, :, part.start : part.start + heads * size]
    return tf.transpose(tf.reshape(columns, [1, columns.shape[2], heads, size]), [0, 2, 1, 3])


def _joined(parts: list[Any], axis: int) -> Any:
    """Concatenated, as many at once as XNNPACK takes."""
    while len(parts) > 1:
        parts = [tf.concat(parts[:_MOST_CONCATENATED], axis=axis), *parts[_MOST_CONCATENATED:]]
    return parts[0]


def _mix(query: Any, key: Any, value: Any) -> Any:
    """softmax(q·kᵀ)·v of [1, heads, tokens, head_size]: XNNPACK multiplies activations in 4-D only."""
    return tf.matmul(tf.nn.softmax(tf.matmul(query, key, transpose_b=True)), value)


def _centre_stream(weights: Weights) -> Weights:
    """Take the mean over channels out of all that is added to the stream: its readers ignore it anyway."""
    writers = ("patch_embedding", "class_token", "position_embedding", "_projection", "_mlp_down")
    return {
        name: _without_mean(weight) if name.partition("/")[0].endswith(writers) else weight
        for name, weight in weights.items()
    }


def _without_mean(weight: Array) -> Array:
    exact = weight.astype(np.float64)
    return np.asarray(exact - exact.mean(axis=-1, keepdims=True), np.float32)


def _fold_norms(config: ViTConfig, weights: Weights) -> Weights:
    """(x·γ + β)·K + b = x·(γ·K) + (β·K + b), for the layers that read a norm."""
    folded = dict(weights)
    readers = {"attention_norm": ("query", "key", "value"), "mlp_norm": ("mlp_up",)}
    for index in range(len(config.blocks)):
        for norm, layers in readers.items():
            gamma = folded.pop(f"block_{index}_{norm}/gamma").astype(np.float64)
            beta = folded.pop(f"block_{index}_{norm}/beta").astype(np.float64)
            for layer in layers:
                kernel = folded[f"block_{index}_{layer}/kernel"].astype(np.float64)
                bias = folded[f"block_{index}_{layer}/bias"]
                folded[f"block_{index}_{layer}/kernel"] = (gamma[:, np.newaxis] * kernel).astype(np.float32)
                folded[f"block_{index}_{layer}/bias"] = (beta @ kernel + bias).astype(np.float32)
    return folded
