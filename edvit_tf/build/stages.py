"""The stages of an export, and for each what its result depends on: settings, other results, our own code.

This is the whole list. A stage's function is given its settings through `Stage.settings_of`, which refuses a
field that the stage does not name here: forgetting one is an error, never an old result for a new question.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.data import Dataset
from edvit_tf.build.settings import AUTO, ExportSettings
from edvit_tf.build.store import Recipe
from edvit_tf.build.widths import Widths
from edvit_tf.vit.checkpoint import Checkpoint
from edvit_tf.vit.config import ViTConfig

PACKAGES = (
    "tensorflow", "tf-keras", "tensorflow-model-optimization", "ai-edge-litert", "ai-edge-quantizer", "numpy",
)  # fmt: skip
_MODEL = ("edvit_tf.vit.config", "edvit_tf.vit.layers", "edvit_tf.vit.model")
_TRAINING = (
    "edvit_tf.build.balance",
    "edvit_tf.build.grouping",
    "edvit_tf.build.training",
    "edvit_tf.build.resume",
    *_MODEL,
)
_CONVERSION = ("edvit_converters", *_MODEL)


EDGE_TPU = "edgetpu"
"""The format that is made of a student and not of the sub-model itself."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the method.

    Attributes:
        name: the first part of its results' names.
        settings: the fields and properties of `ExportSettings` that change its result.
        code: our modules, or whole packages, that change its result; comments do not count.
    """

    name: str
    settings: tuple[str, ...]
    code: tuple[str, ...]

    def recipe(self, settings: ExportSettings, *inputs: Recipe, **parameters: object) -> Recipe:
        """What makes a result of this stage.

        Args:
            settings: of the export; only those that the stage names count.
            inputs: the results that it reads.
            parameters: JSON values that tell this result from the stage's others, a group or a format.
        """
        return Recipe(
            self.name,
            {
                "settings": {name: getattr(settings, name) for name in self.settings},
                "inputs": [recipe.key for recipe in inputs],
                "parameters": parameters,
                "code": {name: code_of(name) for name in self.code},
                "packages": versions(),
            },
        )

    def settings_of(self, settings: ExportSettings) -> ExportSettings:
        """The settings that the stage may read; reading another raises AttributeError."""
        return cast("ExportSettings", _Declared(self, settings))


class _Declared:
    """Settings of which only those that a stage declares can be read."""

    def __init__(self, stage: Stage, settings: ExportSettings) -> None:
        self._stage, self._settings = stage, settings

    def __getattr__(self, name: str) -> object:
        if name not in self._stage.settings and not (name == "seed_for" and "seed" in self._stage.settings):
            raise AttributeError(
                f"the stage {self._stage.name} reads the setting {name}: name it in stages.py"
            )
        return getattr(self._settings, name)


DATA = Stage("data", (), ())
TEACHER = Stage("teacher", (), ())
TEACHER_FLATBUFFER = Stage("teacher-flatbuffer", (), ("edvit_tf.build.teacher_jobs", *_CONVERSION))
ANSWERS = Stage("answers", (), ("edvit_tf.build.teacher_jobs", "edvit_tf.build.training", *_MODEL))
IMPORTANCE = Stage(
    "importance",
    ("importance", "proxy_images", "seed"),
    ("edvit_tf.build.importance_job", "edvit_tf.build.importance", *_MODEL),
)
LATENCY = Stage("latency", (), ("edvit_tf.build.latency_job", "edvit_tf.build.latency", *_CONVERSION))
SURGERY = Stage(
    "surgery",
    ("layerwise", "budget", "start", "seed"),
    (
        "edvit_tf.build.submodel_job",
        "edvit_tf.build.surgery",
        "edvit_tf.build.widths",
        "edvit_tf.build.layerwise",
        "edvit_tf.build.latency",
        "edvit_tf.vit.checkpoint",
    ),
)
BRANCH = Stage(
    "branch",
    (),
    ("edvit_tf.build.submodel_job", "edvit_tf.build.surgery"),
)
RETRAIN = Stage(
    "retrain",
    ("epochs", "batch", "rate", "distillation", "matching", "others", "balance", "shift", "augment", "seed"),
    ("edvit_tf.build.submodel_job", "edvit_tf.build.retrain", "edvit_tf.build.augment", *_TRAINING),
)
SPARSIFY = Stage(
    "sparsify",
    ("sparsity", "sparsity_epochs", "batch", "rate", "distillation", "others", "balance", "shift", "seed"),
    ("edvit_tf.build.submodel_job", "edvit_tf.build.retrain", "edvit_tf.build.sparsity", *_TRAINING),
)
QUANTISE = Stage(
    "quantise",
    ("qat_epochs", "batch", "rate", "distillation", "matching", "others", "balance", "shift", "seed"),
    (
        "edvit_tf.build.submodel_job",
        "edvit_tf.build.retrain",
        "edvit_tf.build.quantisation",
        *_TRAINING,
        *_CONVERSION,
    ),
)
CONVERT = Stage(
    "convert",
    ("random_weights", "target"),
    ("edvit_tf.build.submodel_job", "edvit_tf.build.variants", *_CONVERSION),
)
CORAL = Stage(
    "coral",
    ("epochs", "batch", "rate", "distillation", "others", "balance", "seed"),
    ("edvit_tf.build.coral_job", "edvit_tf.build.coral", "edvit_tf.build.retrain", *_TRAINING),
)
CORAL_CONVERT = Stage(
    "coral-convert",
    ("random_weights",),
    ("edvit_tf.build.coral_job", "edvit_tf.build.coral", "edvit_tf.build.variants", *_CONVERSION),
)
FEATURES = Stage(
    "features",
    (),
    ("edvit_tf.build.submodel_job", "edvit_tf.build.variants", "edvit_tf.build.training", *_MODEL),
)
FUSION = Stage(
    "fusion",
    ("fusion_epochs", "batch", "distillation", "balance", "left_out", "seed"),
    ("edvit_tf.build.fusion_job", "edvit_tf.build.fusion", *_TRAINING, *_CONVERSION),
)
AUTO_TRIED = Stage(
    "auto",
    ("floor", "memory_mb"),
    (
        "edvit_tf.build.auto",
        "edvit_tf.bundle.tried",
        "edvit_tf.runtime.interpreter",
        "edvit_tf.runtime.measure",
    ),
)
FUSED = Stage(
    "fused", (), ("edvit_tf.build.fusion_job", "edvit_tf.runtime.ensemble", "edvit_tf.runtime.fusion")
)


@dataclass(frozen=True, slots=True)
class TeacherRecipes:
    """What is made of teacher and data once, whatever the groups.

    Attributes:
        data: the splits.
        teacher: the checkpoint.
        flatbuffer: in f32, with its accuracy.
        rows: the first row of each share of the training pictures, and the one after its last.
        answers: the logits for each share.
        importances: of each class, what the teacher's units are worth to it.
    """

    data: Recipe
    teacher: Recipe
    flatbuffer: Recipe
    rows: tuple[tuple[int, int], ...]
    answers: tuple[Recipe, ...]
    importances: tuple[Recipe, ...]


@dataclass(frozen=True, slots=True)
class SubmodelRecipes:
    """All results on the way of a sub-model, or a student of all classes; None where a stage is left out.

    Attributes:
        latency: what widths are chosen by, if by latency.
        common: the student of all classes that it starts from.
        start: the weights that retraining starts from: cut from the teacher, or branched from `common`.
        retrained: on its group.
        sparse: with zeros.
        quantised: rounded in training.
        variants: its flatbuffers by format.
        features: of the training pictures.
        coral: the student that stands for it on an Edge TPU.
    """

    latency: Recipe | None
    common: Recipe | None
    start: Recipe
    retrained: Recipe
    sparse: Recipe | None
    quantised: Recipe | None
    variants: Mapping[str, Recipe]
    features: Recipe
    coral: Recipe | None = None

    @property
    def unrounded(self) -> Recipe:
        """The last one that changes weights before they are rounded."""
        return self.sparse or self.retrained

    @property
    def trained(self) -> Recipe:
        """The last one that changes weights."""
        return self.quantised or self.unrounded

    @property
    def last(self) -> tuple[Recipe, ...]:
        """When these are there nothing is left to make."""
        coral = () if self.coral is None else (self.coral,)
        return (self.trained, self.features, *coral, *self.variants.values())


def of_teacher(settings: ExportSettings, dataset: Dataset, teacher: Checkpoint) -> TeacherRecipes:
    """Recipes from the content of the data and of the teacher."""
    arrays = (
        dataset.train.images,
        dataset.train.labels,
        dataset.validation.images,
        dataset.validation.labels,
    )
    data = DATA.recipe(
        settings,
        content=[_array_hash(array) for array in arrays],
        classes=dataset.classes,
        mirrored=dataset.mirrored,
    )
    weights = {name: _array_hash(weight) for name, weight in sorted(teacher.weights.items())}
    model = TEACHER.recipe(settings, content=weights, config=teacher.config.to_json(), labels=teacher.labels)
    shares = _shares(len(dataset.train), teacher.config.macs * (1 + dataset.mirrored))
    return TeacherRecipes(
        data,
        model,
        TEACHER_FLATBUFFER.recipe(settings, data, model),
        shares,
        tuple(ANSWERS.recipe(settings, data, model, rows=rows) for rows in shares),
        tuple(IMPORTANCE.recipe(settings, data, model, label=label) for label in range(len(teacher.labels))),
    )


def of_latency(settings: ExportSettings, config: ViTConfig, widths: Widths) -> Recipe:
    """What sub-models take on this machine; measured once, so that widths stay as they were chosen."""
    return LATENCY.recipe(
        settings, config=config.to_json(), widths=asdict(widths), format=settings.formats[0]
    )


def of_submodel(
    settings: ExportSettings,
    taught: TeacherRecipes,
    name: str,
    group: tuple[int, ...],
    widths: Widths,
    rows: int | None,
    latency: Recipe | None,
    common: SubmodelRecipes | None = None,
    *,
    cool_down: bool = True,
) -> SubmodelRecipes:
    """All recipes of one sub-model, or of a student of all classes.

    Args:
        settings: of the export.
        taught: what is made of data and teacher.
        name: its id.
        group: its classes.
        widths: what it keeps of the teacher; where it starts from `common`, those of that.
        rows: limits the pictures of an epoch.
        latency: what widths are chosen by, if by latency.
        common: the recipes of the student of all classes that it starts from, if there is one.
        cool_down: whether the rate of its retraining falls to zero.
    """
    data, answers = taught.data, taught.answers
    if common is None:
        scores = [taught.importances[label] for label in group]
        start = SURGERY.recipe(settings, *scores, *([latency] if latency else []), widths=asdict(widths))
    else:
        start = BRANCH.recipe(settings, common.retrained, group=group)
    # Where nothing is augmented, KerasCV changes nothing, and need not be there.
    augmented = {} if settings.augment == "none" else {"keras_cv": importlib.metadata.version("keras-cv")}
    trained = retrained = RETRAIN.recipe(
        settings, start, data, *answers, name=name, group=group, rows=rows, cool_down=cool_down, **augmented
    )
    sparse = quantised = None
    if settings.sparsity:
        trained = sparse = SPARSIFY.recipe(
            settings, trained, data, *answers, name=name, group=group, rows=rows
        )
    if settings.qat_epochs:
        trained = quantised = QUANTISE.recipe(
            settings, trained, data, *answers, name=name, group=group, rows=rows
        )
    # What is only tried may be refused, and that is kept as a result.
    tried = {"tried": True} if settings.format == AUTO else {}
    variants = {
        entry: CONVERT.recipe(settings, trained, data, name=name, group=group, format=entry, **tried)
        for entry in settings.formats
        if entry != EDGE_TPU
    }
    features = FEATURES.recipe(settings, trained, data, name=name)
    coral = None
    if EDGE_TPU in settings.formats:
        coral = CORAL.recipe(settings, trained, features, data, *answers, name=name, group=group, rows=rows)
        variants[EDGE_TPU] = CORAL_CONVERT.recipe(settings, coral, data, name=name, group=group)
        variants = {entry: variants[entry] for entry in settings.formats}
    return SubmodelRecipes(
        latency,
        None if common is None else common.retrained,
        start,
        retrained,
        sparse,
        quantised,
        variants,
        features,
        coral,
    )


def of_fusion(
    settings: ExportSettings, taught: TeacherRecipes, submodels: Mapping[str, SubmodelRecipes]
) -> Recipe:
    """The fusion is trained on Keras's features and chosen on those of the first format's flatbuffers.

    Where a student stands for each sub-model too, it learns from the features of both.
    """
    inputs = [
        recipe
        for made in submodels.values()
        for recipe in (made.features, next(iter(made.variants.values())))
    ]
    inputs += [made.coral for made in submodels.values() if made.coral is not None]
    return FUSION.recipe(settings, taught.data, *taught.answers, *inputs, names=list(submodels))


def of_fused(
    settings: ExportSettings,
    taught: TeacherRecipes,
    fusion: Recipe,
    submodels: Mapping[str, SubmodelRecipes],
    format_name: str,
) -> Recipe:
    """How right the fusion is over the sub-models in one format."""
    return FUSED.recipe(
        settings,
        taught.data,
        fusion,
        *(made.variants[format_name] for made in submodels.values()),
        names=list(submodels),
    )


def of_auto(settings: ExportSettings, fused: Mapping[str, Recipe], devices: Sequence[str]) -> Recipe:
    """What `--format auto` found; measured once, so that the bundle stays as it was chosen.

    `devices` says which ones measured, and is empty where this machine did.
    """
    return AUTO_TRIED.recipe(settings, *fused.values(), formats=list(fused), devices=list(devices))


@cache
def code_of(name: str) -> str:
    """A hash of what a module, or every module of a package, computes: its syntax without docstrings."""
    spec = importlib.util.find_spec(name)
    assert spec is not None  # noqa: S101  the names above are ours
    assert spec.origin is not None  # noqa: S101
    files = (
        sorted(Path(spec.origin).parent.glob("*.py")) if spec.submodule_search_locations else [spec.origin]
    )
    digest = hashlib.sha256()
    for file in files:
        tree = ast.parse(Path(file).read_text("utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()[:16]


@cache
def versions() -> Mapping[str, str]:
    """The packages that a result can depend on, those that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # not every format needs every package
    return found


def _is_text(part: object) -> bool:
    return (
        isinstance(part, ast.Expr)
        and isinstance(part.value, ast.Constant)
        and isinstance(part.value.value, str)
    )


def _array_hash(array: NDArray[Any]) -> str:
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


_MACS_OF_A_SHARE = 2e13  # some minutes on one core


def _shares(rows: int, macs: int) -> tuple[tuple[int, int], ...]:
    """At least two shares, the same however many workers there are, so that numbers are too."""
    count = min(rows, max(2, round(rows * macs / _MACS_OF_A_SHARE)))
    borders = [rows * index // count for index in range(count + 1)]
    return tuple(pairwise(borders))
