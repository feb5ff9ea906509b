"""What the processes of an export are asked for, and how results are read back: plain data, no TensorFlow.

A job reads its inputs from the store and leaves its results there, each under its recipe.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.balance import without_prior
from edvit_tf.build.settings import ExportSettings
from edvit_tf.build.stages import SubmodelRecipes, TeacherRecipes
from edvit_tf.build.store import Recipe, Result, Store
from edvit_tf.build.widths import Widths
from edvit_tf.build.workspace import Workspace
from edvit_tf.bundle.manifest import Calibration, TensorSpec
from edvit_tf.vit.checkpoint import Checkpoint, load
from edvit_tf.vit.config import ViTConfig

MODEL = "model.safetensors"
FLATBUFFER = "model.tflite"
VECTOR = "vector.safetensors"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, slots=True)
class TeacherJob:
    """Make the teacher's flatbuffer, or its answers to the training pictures from `rows[0]` to `rows[1]`."""

    recipe: Recipe
    recipes: TeacherRecipes
    store: Store
    workspace: Workspace
    rows: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class ImportanceJob:
    """Judge the teacher's units by the pictures of each of these classes."""

    classes: tuple[int, ...]
    taught: TeacherRecipes
    store: Store
    workspace: Workspace
    settings: ExportSettings


@dataclass(frozen=True, slots=True)
class LatencyJob:
    """Measure flatbuffers around the uniform sub-model of these widths, and fit a model of latency."""

    recipe: Recipe
    config: ViTConfig
    widths: Widths
    format_name: str
    store: Store
    workspace: Workspace


@dataclass(frozen=True, slots=True)
class SubmodelJob:
    """Make the sub-model `name` for a group of classes.

    `rows` limits the pictures of an epoch; without `cool_down` retraining is to go on elsewhere.
    """

    name: str
    group: tuple[int, ...]
    widths: Widths
    recipes: SubmodelRecipes
    taught: TeacherRecipes
    store: Store
    workspace: Workspace
    settings: ExportSettings
    rows: int | None = None
    cool_down: bool = True


@dataclass(frozen=True, slots=True)
class FusionJob:
    """Train the fusion of the sub-models `submodels`, whose features lie in the store."""

    recipe: Recipe
    submodels: Mapping[str, SubmodelRecipes]
    taught: TeacherRecipes
    store: Store
    workspace: Workspace
    settings: ExportSettings


@dataclass(frozen=True, slots=True)
class FusedJob:
    """Measure a fusion over the sub-models in one format."""

    recipe: Recipe
    fusion: Recipe
    variants: Mapping[str, Recipe]
    store: Store
    workspace: Workspace


@dataclass(frozen=True, slots=True)
class MadeVariant:
    """A sub-model in one format, in the store.

    Attributes:
        flatbuffer: the file.
        vector: the file with a picture and what the flatbuffer answers to it.
        partitions, arena_bytes, operators, inputs, outputs: what the manifest says of the flatbuffer.
        cosine: the smallest between its outputs and Keras's.
        accuracy: on validation, its group's classes against "other".
    """

    flatbuffer: Path
    vector: Path
    partitions: int
    arena_bytes: int
    operators: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    cosine: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class MadeSubmodel:
    """A sub-model that is ready for a bundle.

    Attributes:
        name: its id.
        group: its classes.
        config: its sizes.
        variants: by format, in the order asked for.
        retrained_accuracy: of the Keras model as it was retrained alone, on validation.
        sparsity: smallest share of zeros among its Dense kernels that TF-MOT made.
        rows: pictures of a training epoch.
        seconds: spent on each stage, when it was made.
    """

    name: str
    group: tuple[int, ...]
    config: ViTConfig
    variants: Mapping[str, MadeVariant]
    retrained_accuracy: float
    sparsity: float
    rows: int
    seconds: dict[str, float]

    def only(self, formats: Sequence[str]) -> "MadeSubmodel":
        """The same in these formats, in their order."""
        return replace(self, variants={name: self.variants[name] for name in formats})


@dataclass(frozen=True, slots=True)
class Fused:
    """Accuracies on validation of the fusion over flatbuffers of one format.

    Attributes:
        accuracy: with all sub-models.
        missing: without one of them, by its id; empty when there is only one.
    """

    accuracy: float
    missing: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class MadeFusion:
    """A fusion that is ready for a bundle.

    Attributes:
        flatbuffer: the f32 file.
        weights: the safetensors file of the same weights by name.
        calibration: a temperature for each number missing.
        fused: accuracies by format, in the order asked for.
    """

    flatbuffer: Path
    weights: Path
    calibration: tuple[Calibration, ...]
    fused: Mapping[str, Fused]


def read_checkpoint(result: Result) -> Checkpoint:
    """The model that a stage kept."""
    return load(result.path(MODEL))


def read_trained(job: SubmodelJob) -> Checkpoint:
    """A sub-model as it is converted."""
    return read_checkpoint(job.store.get(job.recipes.trained))


def read_answers(store: Store, recipes: TeacherRecipes) -> NDArray[np.float32]:
    """The teacher's logits for every training picture, f32 [n, views, classes]."""
    return np.concatenate([store.get(recipe).array("logits") for recipe in recipes.answers])


def lessons(
    store: Store, recipes: TeacherRecipes, workspace: Workspace, *, balance: bool
) -> NDArray[np.float32]:
    """The teacher's answers as a training takes them, with `balance` freed of their prior."""
    answers = read_answers(store, recipes)
    if not balance:
        return answers
    return without_prior(answers, workspace.split("train").counts(len(workspace.classes)))


def read_submodel(job: SubmodelJob) -> MadeSubmodel:
    """What a sub-model's job left in the store."""
    store, recipes = job.store, job.recipes
    stages = {"retraining": store.get(recipes.retrained), "features": store.get(recipes.features)}
    stages |= {"sparsity": store.get(recipes.sparse)} if recipes.sparse else {}
    stages |= {"quantisation": store.get(recipes.quantised)} if recipes.quantised else {}
    variants = {name: store.get(recipe) for name, recipe in recipes.variants.items()}
    stages |= {f"conversion to {name}": result for name, result in variants.items()}
    return MadeSubmodel(
        name=job.name,
        group=job.group,
        config=read_trained(job).config,
        variants={name: _read_variant(result) for name, result in variants.items()},
        retrained_accuracy=stages["retraining"].facts["accuracy"],
        sparsity=stages["sparsity"].facts["sparsity"] if recipes.sparse else 0.0,
        rows=stages["retraining"].facts["rows"],
        seconds={name: result.seconds for name, result in stages.items()},
    )


def refused_formats(jobs: Sequence[SubmodelJob]) -> dict[str, str]:
    """Why formats that were only tried are not to be had, by their name."""
    return {
        name: facts["refused"]
        for job in jobs
        for name, recipe in job.recipes.variants.items()
        if "refused" in (facts := job.store.get(recipe).facts)
    }


def without_formats(job: SubmodelJob, names: Collection[str]) -> SubmodelJob:
    """The same job without some of its formats."""
    variants = {name: recipe for name, recipe in job.recipes.variants.items() if name not in names}
    return replace(job, recipes=replace(job.recipes, variants=variants))


def read_fusion(store: Store, fusion: Recipe, fused: Mapping[str, Recipe]) -> MadeFusion:
    """What the fusion's jobs left in the store; `fused` by format."""
    result = store.get(fusion)
    return MadeFusion(
        flatbuffer=result.path(FLATBUFFER),
        weights=result.path(WEIGHTS),
        calibration=tuple(Calibration(**entry) for entry in result.facts["calibration"]),
        fused={name: Fused(**store.get(recipe).facts) for name, recipe in fused.items()},
    )


def _read_variant(result: Result) -> MadeVariant:
    facts = result.facts
    return MadeVariant(
        flatbuffer=result.path(FLATBUFFER),
        vector=result.path(VECTOR),
        partitions=facts["partitions"],
        arena_bytes=facts["arena_bytes"],
        operators=tuple(facts["operators"]),
        inputs=_tensors(facts["inputs"]),
        outputs=_tensors(facts["outputs"]),
        cosine=facts["cosine"],
        accuracy=facts["accuracy"],
    )


def _tensors(entries: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(**{**entry, "shape": tuple(entry["shape"])}) for entry in entries)
