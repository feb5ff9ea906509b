"""A model on disk: one safetensors file with the weights, the config, the labels and how it came about."""

import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from edvit_tf.errors import ModelError
from edvit_tf.vit.config import ViTConfig, weight_shapes

Weights = dict[str, NDArray[np.float32]]

_METADATA_KEY = "edvit"
_EMBEDDING_DEVIATION = 0.02


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's weights with all that is needed to use them.

    Attributes:
        config: sizes and normalisation.
        weights: f32 arrays by name, exactly those of `weight_shapes(config)`.
        labels: one name for each logit.
        details: how it was made (data set, command, seed, accuracy …), JSON values only.

    Raises:
        ModelError: weights or labels do not fit the config.
    """

    config: ViTConfig
    weights: Weights
    labels: tuple[str, ...]
    details: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_weights(self.config, self.weights)
        if len(self.labels) != self.config.classes:
            raise ModelError(f"The model has {self.config.classes} logits but {len(self.labels)} labels.")


def fresh_weights(config: ViTConfig, *, seed: int) -> Weights:
    """Random weights to train from, distributed as Keras draws them: Glorot's uniform for kernels."""
    generator = np.random.default_rng(seed)

    def draw(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        kind = name.rpartition("/")[2]
        if kind == "kernel":
            # A convolution's inputs and outputs count once for each place of its window.
            limit = math.sqrt(6 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1])))
            return generator.uniform(-limit, limit, shape).astype(np.float32)
        if kind in ("token", "positions"):
            return generator.normal(0.0, _EMBEDDING_DEVIATION, shape).astype(np.float32)
        return np.full(shape, kind == "gamma", np.float32)

    return {name: draw(name, shape) for name, shape in weight_shapes(config).items()}


def check_weights(config: ViTConfig, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Names, shapes and types are exactly what the config says.

    Raises:
        ModelError: they are not; the sentence names what is missing, too much or of a wrong shape.
    """
    shapes = weight_shapes(config)
    missing, unknown = sorted(shapes.keys() - weights.keys()), sorted(weights.keys() - shapes.keys())
    if missing or unknown:
        raise ModelError(f"The weights do not fit the model: missing are {missing}, unknown are {unknown}.")
    for name, shape in shapes.items():
        if weights[name].shape != shape or weights[name].dtype != np.float32:
            raise ModelError(
                f"The weight '{name}' is {weights[name].dtype} {weights[name].shape}, "
                f"but the model's configuration says float32 {shape}."
            )


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint; the file appears whole or not at all.

    Raises:
        ModelError: the file cannot be written.
    """
    header = {
        "config": checkpoint.config.to_json(),
        "labels": list(checkpoint.labels),
        "details": dict(checkpoint.details),
    }
    tensors = {
        name: np.ascontiguousarray(checkpoint.weights[name]) for name in weight_shapes(checkpoint.config)
    }
    content = to_safetensors(tensors, metadata={_METADATA_KEY: json.dumps(header, sort_keys=True)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise ModelError(f"The model cannot be written to {path}: {error.strerror}.") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it appears, or is replaced, whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp lets only its owner read
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(path: Path) -> Checkpoint:
    """Read a checkpoint that `save` wrote.

    Raises:
        ModelError: the file is missing, is no safetensors file, was not made by edvit-tf, or is damaged.
    """
    if not path.is_file():
        raise ModelError(f"There is no model file {path}: check the path, or make one with 'edvit-tf train'.")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = (file.metadata() or {}).get(_METADATA_KEY)
            if metadata is None:
                raise ModelError(f"{path} was not written by edvit-tf: make a model with 'edvit-tf train'.")
            weights = {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a whole safetensors file: fetch or train the model again."
        ) from error
    config, labels, details = _parse_header(path, metadata)
    broken = sorted(name for name, weight in weights.items() if not np.isfinite(weight).all())
    if broken:
        raise ModelError(
            f"{path} holds numbers that are not finite, in {', '.join(broken)}: train the model again."
        )
    return Checkpoint(config, weights, labels, details)


def _parse_header(path: Path, text: str) -> tuple[ViTConfig, tuple[str, ...], Mapping[str, object]]:
    broken = ModelError(f"The header of {path} is broken: fetch or train the model again.")
    try:
        header = json.loads(text)
    except json.JSONDecodeError as error:
        raise broken from error
    if not isinstance(header, dict) or not isinstance(header.get("details"), dict):
        raise broken
    labels = header.get("labels")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise broken
    return ViTConfig.from_json(header.get("config")), tuple(labels), header["details"]
