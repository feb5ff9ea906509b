"""A ViT in plain NumPy, float64, written from the formulas: what the Keras model is held against.

Every unit has a gate (1 keeps it, 0 removes its writes). Norm statistics run over `norm_channels`, so that
the network after cutting residual channels can be stated without cutting anything.
"""

import math

import numpy as np
from numpy.typing import NDArray

from edvit_tf.vit.checkpoint import Weights
from edvit_tf.vit.config import ViTConfig, weight_shapes

Array = NDArray[np.float64]
_erf = np.vectorize(math.erf)


def forward(
    config: ViTConfig,
    weights: Weights,
    images: NDArray[np.uint8],
    *,
    residual: Array | None = None,
    heads: list[Array] | None = None,
    mlp: list[Array] | None = None,
    stem: list[Array] | None = None,
    norm_channels: NDArray[np.intp] | None = None,
) -> tuple[Array, Array]:
    """Feature [b, width] and logits [b, classes] of uint8 images, gated by channel, head and MLP unit."""
    w = {name: weight.astype(np.float64) for name, weight in weights.items()}
    residual = np.ones(config.width) if residual is None else residual
    channels = np.arange(config.width) if norm_channels is None else norm_channels

    def dense(x: Array, name: str) -> Array:
        result: Array = x @ w[f"{name}/kernel"] + w[f"{name}/bias"]
        return result

    def norm(x: Array, name: str) -> Array:
        mean = x[..., channels].mean(-1, keepdims=True)
        variance = x[..., channels].var(-1, keepdims=True)
        result: Array = (x - mean) / np.sqrt(variance + 1e-6) * w[f"{name}/gamma"] + w[f"{name}/beta"]
        return result

    count, patch = len(images), config.embedded_patch
    x = (images - np.asarray(config.mean)) / np.asarray(config.deviation)
    for index in range(len(config.stem)):
        x = np.maximum(_halved(x, w[f"stem_{index}/kernel"]) + w[f"stem_{index}/bias"], 0)
        if stem is not None:
            x = x * stem[index]
    rows, columns = x.shape[1] // patch, x.shape[2] // patch
    x = x.reshape(count, rows, patch, columns, patch, x.shape[-1]).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(count, config.patches, -1) @ w["patch_embedding/kernel"].reshape(-1, config.width)
    x = x + w["patch_embedding/bias"]
    x = np.concatenate([np.broadcast_to(w["class_token/token"], (count, 1, config.width)), x], axis=1)
    x = (x + w["position_embedding/positions"]) * residual
    for index, block in enumerate(config.blocks):
        name = f"block_{index}"
        # Masked channels must reach no layer, though beta would let them.
        hidden = norm(x, f"{name}_attention_norm") * (residual != 0)
        q, k, v = (
            dense(hidden, f"{name}_{part}").reshape(count, -1, block.heads, config.head_size)
            for part in ("query", "key", "value")
        )
        scores = np.einsum("bqhs,bkhs->bhqk", q, k) / math.sqrt(config.head_size)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        mixed = np.einsum("bhqk,bkhs->bqhs", scores, v)
        if heads is not None:
            mixed = mixed * heads[index][:, None]
        x = x + dense(mixed.reshape(count, config.tokens, -1), f"{name}_projection") * residual
        hidden = dense(norm(x, f"{name}_mlp_norm") * (residual != 0), f"{name}_mlp_up")
        hidden = hidden * 0.5 * (1 + _erf(hidden / math.sqrt(2)))
        if mlp is not None:
            hidden = hidden * mlp[index]
        x = x + dense(hidden, f"{name}_mlp_down") * residual
    feature = norm(x[:, 0], "final_norm") * (residual != 0)
    return feature, dense(feature, "head")


def _halved(x: Array, kernel: Array) -> Array:
    """A 3 x 3 convolution of stride 2 on [b, h, w, c]; zeros go below and to the right of the picture."""
    rows, columns = x.shape[1] // 2, x.shape[2] // 2
    padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    result: Array = np.zeros((len(x), rows, columns, kernel.shape[-1]))
    for down, right in np.ndindex(3, 3):
        result += padded[:, down::2, right::2][:, :rows, :columns] @ kernel[down, right]
    return result


def random_weights(config: ViTConfig, seed: int) -> Weights:
    """Weights large enough that every part of the model matters, biases and norms included."""
    random = np.random.default_rng(seed)
    return {
        name: (random.normal(0, 0.3, shape) + (1 if name.endswith("gamma") else 0)).astype(np.float32)
        for name, shape in weight_shapes(config).items()
    }


def random_images(config: ViTConfig, count: int, seed: int) -> NDArray[np.uint8]:
    """Pictures of noise, uint8 [count, height, width, channels]."""
    size = config.image
    shape = (count, size.height, size.width, size.channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
