"""What the processes of an export are asked and what they answer: plain data, no TensorFlow.

The functions that do the work are in `jobs.py`, under the same names.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.settings import ExportSettings
from edvit_tf.build.widths import Widths
from edvit_tf.build.workspace import Workspace
from edvit_tf.bundle.manifest import Calibration, TensorSpec
from edvit_tf.bundle.vector import Vector
from edvit_tf.vit.checkpoint import Checkpoint
from edvit_tf.vit.config import ViTConfig


@dataclass(frozen=True, slots=True)
class TeacherJob:
    """Run the teacher on rows `start` to `stop` of the training split, and convert it if it is asked for."""

    teacher: Checkpoint
    workspace: Workspace
    start: int
    stop: int
    convert: bool


@dataclass(frozen=True, slots=True)
class TaughtTeacher:
    """Logits f32 [rows, views, classes], and the f32 flatbuffer where it was asked for."""

    logits: NDArray[np.float32]
    flatbuffer: bytes | None


@dataclass(frozen=True, slots=True)
class SubmodelJob:
    """Make the sub-model `name` for a group of classes; `rows` limits the pictures of an epoch."""

    name: str
    group: tuple[int, ...]
    widths: Widths
    teacher: Checkpoint
    workspace: Workspace
    settings: ExportSettings
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class MadeSubmodel:
    """A sub-model that is ready for a bundle.

    Attributes:
        name: its id.
        group: its classes.
        config: its sizes.
        flatbuffer: in the format asked for.
        partitions, arena_bytes, operators, inputs, outputs: what the manifest says of the flatbuffer.
        cosine: the smallest between its outputs and Keras's.
        vector: a picture and what the flatbuffer answers to it.
        accuracy: of the flatbuffer on validation, its group's classes against "other".
        retrained_accuracy: of the Keras model before sparsity and conversion, on the same.
        sparsity: smallest share of zeros among its Dense kernels.
        rows: pictures of a training epoch.
        seconds: spent on each step.
    """

    name: str
    group: tuple[int, ...]
    config: ViTConfig
    flatbuffer: bytes
    partitions: int
    arena_bytes: int
    operators: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    cosine: float
    vector: Vector
    accuracy: float
    retrained_accuracy: float
    sparsity: float
    rows: int
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class FusionJob:
    """Train the fusion of the sub-models `names`, whose features lie in the workspace."""

    names: tuple[str, ...]
    workspace: Workspace
    settings: ExportSettings


@dataclass(frozen=True, slots=True)
class MadeFusion:
    """A fusion that is ready for a bundle; accuracies on validation, features through the flatbuffers.

    Attributes:
        flatbuffer: f32.
        weights: the same weights by name.
        calibration: a temperature for each number missing.
        accuracy: with all sub-models.
        missing: without one of them, by its id; empty when there is only one.
    """

    flatbuffer: bytes
    weights: dict[str, NDArray[np.float32]]
    calibration: tuple[Calibration, ...]
    accuracy: float
    missing: dict[str, float]
