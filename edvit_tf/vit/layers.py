"""The layers a ViT needs beyond Keras's own: small, named, serialisable, static in every shape but the batch.

TF-MOT clones models layer by layer and LiteRT delegates only graphs without dynamic tensors; both are why no
Keras tensor is sliced or added outside a layer, and why no shape is asked for at run time when it is known.
"""

from typing import Any

import numpy as np

from edvit_tf.vit.keras import keras, tf

_register = keras.saving.register_keras_serializable(package="edvit")
NORM_EPSILON = 1e-6


@_register
class Normalise(keras.layers.Layer):  # type: ignore[misc]
    """uint8 [b, h, w, c] → f32 [b, h, w, c]: (x - mean) / deviation of each channel."""

    def __init__(self, mean: tuple[float, ...], deviation: tuple[float, ...], **keywords: Any) -> None:
        super().__init__(**keywords)
        self.mean = tuple(mean)
        self.deviation = tuple(deviation)

    def call(self, image: Any) -> Any:
        """Cast and normalise; a mean of 0 and a deviation of 1 (they were folded) leave only the cast."""
        pixels = tf.cast(image, tf.float32)
        if any(self.mean):
            pixels = pixels - np.asarray(self.mean, np.float32)
        if any(number != 1 for number in self.deviation):
            pixels = pixels * np.asarray(1 / np.asarray(self.deviation), np.float32)
        return pixels

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "mean": list(self.mean), "deviation": list(self.deviation)}


@_register
class Tokens(keras.layers.Layer):  # type: ignore[misc]
    """Patches on their grid f32 [b, rows, columns, width] → a sequence [b, rows·columns, width]."""

    def call(self, grid: Any) -> Any:
        """Flatten the grid, row by row."""
        _, rows, columns, width = grid.shape
        return tf.reshape(grid, [-1, rows * columns, width])


@_register
class ClassToken(keras.layers.Layer):  # type: ignore[misc]
    """f32 [b, n, width] → [b, n + 1, width]: the learned class token goes in front."""

    def build(self, shape: Any) -> None:
        """Weight `token` [width]."""
        self.token = self.add_weight(
            name="token", shape=(shape[-1],), initializer=keras.initializers.TruncatedNormal(stddev=0.02)
        )
        super().build(shape)

    def call(self, tokens: Any) -> Any:
        """Put the class token first."""
        batch = tokens.shape[0] or tf.shape(tokens)[0]  # known when converting: no dynamic tensor then
        class_token = tf.broadcast_to(self.token, [batch, 1, tokens.shape[-1]])
        return tf.concat([class_token, tokens], axis=1)


@_register
class PositionEmbedding(keras.layers.Layer):  # type: ignore[misc]
    """f32 [b, n, width] → the same shape: a learned vector is added to each token."""

    def build(self, shape: Any) -> None:
        """Weight `positions` [n, width]."""
        self.positions = self.add_weight(
            name="positions",
            shape=tuple(shape[1:]),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
        )
        super().build(shape)

    def call(self, tokens: Any) -> Any:
        """Add the positions."""
        return tokens + self.positions


@_register
class LayerNorm(keras.layers.Layer):  # type: ignore[misc]
    """Layer normalisation over the last axis, f32 [..., width] → the same shape.

    Keras's own is a fused batch normalisation with shapes asked for at run time: no delegation then.
    """

    def build(self, shape: Any) -> None:
        """Weights `gamma` and `beta`, [width] each."""
        self.gamma = self.add_weight(name="gamma", shape=(shape[-1],), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(shape[-1],), initializer="zeros")
        super().build(shape)

    def call(self, tokens: Any) -> Any:
        """Normalise to mean 0 and variance 1, then scale and shift."""
        mean = tf.reduce_mean(tokens, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.math.squared_difference(tokens, mean), axis=-1, keepdims=True)
        return (tokens - mean) * tf.math.rsqrt(variance + NORM_EPSILON) * self.gamma + self.beta


@_register
class ClassTokenOnly(keras.layers.Layer):  # type: ignore[misc]
    """f32 [b, n, width] → [b, width]: the class token."""

    def call(self, tokens: Any) -> Any:
        """Take the first token; XNNPACK does not take `tokens[:, 0]`, a slice that drops an axis."""
        return tf.reshape(tokens[:, :1], [-1, tokens.shape[-1]])


@_register
class Attention(keras.layers.Layer):  # type: ignore[misc]
    """Scaled dot-product attention of several heads, without weights of its own.

    Takes [query, key, value]: key and value f32 [b, n, heads·head_size], query the same or, for the class
    token alone, [b, heads·head_size]. Gives the query's shape.
    """

    def __init__(self, heads: int, head_size: int, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.heads = heads
        self.head_size = head_size

    def call(self, inputs: Any) -> Any:
        """softmax(q·kᵀ / √head_size)·v, one 4-D product for all heads: XNNPACK takes nothing less."""
        query, key, value = inputs
        units = self.heads * self.head_size
        output_shape = [-1, *query.shape[1:-1], units]
        query = self._split(query * self.head_size**-0.5)
        weights = tf.nn.softmax(tf.matmul(query, self._split(key), transpose_b=True))
        mixed = tf.matmul(weights, self._split(value))
        return tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), output_shape)

    def _split(self, tokens: Any) -> Any:
        """[b, n, units] or [b, units] → [b, heads, n or 1, head_size]."""
        length = tokens.shape[1] if len(tokens.shape) == 3 else 1
        return tf.transpose(tf.reshape(tokens, [-1, length, self.heads, self.head_size]), [0, 2, 1, 3])

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "heads": self.heads, "head_size": self.head_size}
