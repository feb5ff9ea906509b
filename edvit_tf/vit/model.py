"""The Keras model that a config describes; weights in, weights out."""

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edvit_tf.errors import ModelError
from edvit_tf.vit.checkpoint import Checkpoint, Weights, check_weights
from edvit_tf.vit.config import STEM_KERNEL, STEM_STRIDE, BlockConfig, ImageSize, ViTConfig
from edvit_tf.vit.keras import keras
from edvit_tf.vit.layers import (
    Attention,
    ClassToken,
    ClassTokenOnly,
    LayerNorm,
    Normalise,
    PositionEmbedding,
    Tokens,
)


def build(config: ViTConfig, *, batch_size: int | None = None) -> Any:
    """A `keras.Model` with fresh weights (Keras's random seed decides them).

    Input `image`: uint8 [b, height, width, channels]. Outputs, a dict: `feature` f32 [b, width], the class
    token after the final norm, and `logits` f32 [b, classes]. With `batch_size` every shape is static, as
    conversion needs it. The last block computes only the class token: nothing looks at the others any more.
    A loss for the dict's `logits` shows up in Keras's logs under the name of its layer, `head`.
    """
    layers = keras.layers
    image = layers.Input(
        (config.image.height, config.image.width, config.image.channels),
        batch_size,
        name="image",
        dtype="uint8",
    )
    stream = Normalise(config.mean, config.deviation, name="normalise")(image)
    for index, channels in enumerate(config.stem):
        stream = layers.Conv2D(
            channels, STEM_KERNEL, STEM_STRIDE, "same", activation="relu", name=f"stem_{index}"
        )(stream)
    patch = config.embedded_patch
    stream = layers.Conv2D(config.width, patch, strides=patch, name="patch_embedding")(stream)
    stream = Tokens(name="tokens")(stream)
    stream = ClassToken(name="class_token")(stream)
    stream = PositionEmbedding(name="position_embedding")(stream)
    last = len(config.blocks) - 1
    for index, block in enumerate(config.blocks):
        stream = _block(stream, config, block, f"block_{index}", class_token_only=index == last)
    feature = LayerNorm(name="final_norm")(stream)
    logits = layers.Dense(config.classes, name="head")(feature)
    return keras.Model(image, {"feature": feature, "logits": logits}, name="vit")


def _block(stream: Any, config: ViTConfig, block: BlockConfig, name: str, *, class_token_only: bool) -> Any:
    """Pre-norm encoder block: attention, then MLP, each added to the stream."""
    layers = keras.layers
    units = block.heads * config.head_size
    keys = queries = LayerNorm(name=f"{name}_attention_norm")(stream)
    if class_token_only:
        queries = ClassTokenOnly(name=f"{name}_query_token")(queries)
        stream = ClassTokenOnly(name=f"{name}_class_token")(stream)
    query = layers.Dense(units, name=f"{name}_query")(queries)
    key = layers.Dense(units, name=f"{name}_key")(keys)
    value = layers.Dense(units, name=f"{name}_value")(keys)
    mixed = Attention(block.heads, config.head_size, name=f"{name}_attention")([query, key, value])
    mixed = layers.Dense(config.width, name=f"{name}_projection")(mixed)
    stream = layers.Add(name=f"{name}_attention_sum")([stream, mixed])
    hidden = LayerNorm(name=f"{name}_mlp_norm")(stream)
    hidden = layers.Dense(block.mlp_units, name=f"{name}_mlp_up")(hidden)
    hidden = layers.Activation("gelu", name=f"{name}_gelu")(hidden)
    hidden = layers.Dense(config.width, name=f"{name}_mlp_down")(hidden)
    return layers.Add(name=f"{name}_mlp_sum")([stream, hidden])


def read_weights(model: Any) -> Weights:
    """All weights as f32 arrays by "<layer>/<weight>", the names of `weight_shapes`."""
    return {name: variable.numpy() for name, variable in named_variables(model).items()}


def write_weights(model: Any, weights: Weights) -> None:
    """Set all weights of a model.

    Raises:
        ModelError: the names are not exactly the model's, or a shape differs; nothing was changed then.
    """
    variables = named_variables(model)
    if variables.keys() != weights.keys():
        raise ModelError(
            f"The weights do not fit the model: it has {sorted(variables)}, but was given {sorted(weights)}."
        )
    for name, variable in variables.items():
        if tuple(variable.shape) != weights[name].shape:
            raise ModelError(
                f"The weight '{name}' is {weights[name].shape}, and the model's {tuple(variable.shape)}."
            )
    for name, variable in variables.items():
        variable.assign(weights[name])


def named_variables(model: Any) -> dict[str, Any]:
    """The variables of a Keras model by "<layer>/<weight>"."""
    return {
        f"{layer.name}/{variable.name.rsplit('/', 1)[-1].removesuffix(':0')}": variable
        for layer in model.layers
        for variable in layer.weights
    }


def from_checkpoint(checkpoint: Checkpoint, *, batch_size: int | None = None) -> Any:
    """`build` with the checkpoint's weights."""
    model = build(checkpoint.config, batch_size=batch_size)
    write_weights(model, checkpoint.weights)
    return model


def fold_normalisation(config: ViTConfig, weights: Weights) -> tuple[ViTConfig, Weights]:
    """The same function with mean 0 and deviation 1: both go into the patch embedding. Exact.

    (x - μ)/σ · K + b = x · (K/σ) + (b - Σ μ/σ · K), the sum over the patch's pixels and channels. A stem's
    first convolution takes the deviation alone: beyond the picture's edge it sees zeros, not means.
    """
    channels = config.image.channels
    if config.stem:
        kernel = weights["stem_0/kernel"] / np.asarray(config.deviation, np.float64)[:, None]
        return replace(config, deviation=(1.0,) * channels), weights | {
            "stem_0/kernel": kernel.astype(np.float32)
        }
    kernel = weights["patch_embedding/kernel"].astype(np.float64)  # [patch, patch, channels, width]
    scaled = kernel / np.asarray(config.deviation)[:, None]
    shift = np.einsum("pqcw,c->w", scaled, np.asarray(config.mean))
    folded = {
        "patch_embedding/kernel": scaled.astype(np.float32),
        "patch_embedding/bias": (weights["patch_embedding/bias"] - shift).astype(np.float32),
    }
    return replace(config, mean=(0.0,) * channels, deviation=(1.0,) * channels), weights | folded


def read_config(model: Any) -> ViTConfig:
    """The config of a model that `build` made, read off its layers.

    Raises:
        ModelError: it is another kind of model.
    """
    layers = {layer.name: layer for layer in model.layers}
    depth = sum(name.endswith("_attention") for name in layers)
    try:
        attention = [layers[f"block_{index}_attention"] for index in range(depth)]
        mlp_up = [layers[f"block_{index}_mlp_up"] for index in range(depth)]
        blocks = tuple(BlockConfig(a.heads, m.units) for a, m in zip(attention, mlp_up, strict=True))
        patch_embedding, normalise = layers["patch_embedding"], layers["normalise"]
        stem = tuple(layers[name].filters for name in layers if name.startswith("stem_"))
        return ViTConfig(
            image=ImageSize(*model.inputs[0].shape[1:]),
            patch=patch_embedding.kernel_size[0] * STEM_STRIDE ** len(stem),
            width=patch_embedding.filters,
            head_size=attention[0].head_size,
            blocks=blocks,
            classes=layers["head"].units,
            mean=normalise.mean,
            deviation=normalise.deviation,
            stem=stem,
        )
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise ModelError(
            "This Keras model was not built by edvit-tf: take a preset, or a model from 'edvit-tf train'."
        ) from error


def load_keras(path: Path, labels: tuple[str, ...] | None = None) -> Checkpoint:
    """Read a model of ours that was saved as `.keras` (Keras 2); without `labels` they are "0", "1", ….

    Raises:
        ModelError: the file is missing or broken, or holds another kind of model.
    """
    if not path.is_file():
        raise ModelError(f"There is no model file {path}: check the path, or make one with 'edvit-tf train'.")
    if not zipfile.is_zipfile(path):
        raise ModelError(f"{path} is not a whole .keras file: save or fetch the model again.")
    try:
        model = keras.models.load_model(path, compile=False)
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"Keras 2 cannot read {path}; was it saved by another version of Keras?") from error
    config, weights = read_config(model), read_weights(model)
    check_weights(config, weights)
    return Checkpoint(config, weights, labels or tuple(str(index) for index in range(config.classes)))
