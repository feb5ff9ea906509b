"""What an export will make: groups, sizes and operations, known before anything is trained. No TensorFlow."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from edvit_converters.formats import find
from edvit_converters.targets import check_formats

from edvit_tf import zoo
from edvit_tf.build.data import class_names
from edvit_tf.build.grouping import logits_of_group
from edvit_tf.build.layerwise import Bytes, check_budget
from edvit_tf.build.settings import GROUPINGS, ExportSettings
from edvit_tf.build.split import Groups, by_hand, random_balanced
from edvit_tf.build.widths import Widths, check_within, largest_within, most_logits, narrowed, uniform
from edvit_tf.errors import ModelError, PlanError, UsageError
from edvit_tf.vit.checkpoint import Checkpoint, fresh_weights, load
from edvit_tf.vit.config import PRESETS, STEM_STRIDE, ViTConfig, weight_shapes

# Of int8-full the patch embedding and the projections stay float.
_BYTES_OF_A_WEIGHT = {
    "f32": 4.0, "f16": 2.0, "int8": 1.0, "int8-dynamic": 1.0, "int4-dynamic": 0.5, "int8-full": 1.5,
    "edgetpu": 1.0,
}  # fmt: skip
_GRAPH_BYTES = 6_000  # of a flatbuffer's graph, for each block
_MEGABYTE = 1_000_000  # as `edvit-tf device run --memory-mb` counts


@dataclass(frozen=True, slots=True)
class PlannedSubmodel:
    """A sub-model before it is made, in its largest format; `bytes` and `arena_bytes` are estimates."""

    id: str
    group: tuple[int, ...]
    config: ViTConfig
    bytes: int
    arena_bytes: int

    @property
    def memory_bytes(self) -> int:
        """What a device needs to serve it: the flatbuffer, the delegate's packed copy of it, the arena."""
        return 2 * self.bytes + self.arena_bytes


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """The whole of an export before it is made.

    Attributes:
        teacher: its name.
        config: the teacher's.
        classes: labels of the data set.
        widths: what every sub-model keeps; where shapes are tried, the uniform ones until `with_widths`.
        formats: of the flatbuffers.
        submodels: one for each device; where pictures or the teacher's answers decide the groups, these are
            as many and as large until `with_groups`.
    """

    teacher: str
    config: ViTConfig
    classes: tuple[str, ...]
    widths: Widths
    formats: tuple[str, ...]
    submodels: tuple[PlannedSubmodel, ...]

    def with_widths(self, widths: Widths) -> "ExportPlan":
        """The same plan for sub-models of another shape."""
        return replace(self, widths=widths).with_groups(tuple(made.group for made in self.submodels))

    def with_groups(self, groups: Groups) -> "ExportPlan":
        """The same plan for other groups."""
        config = narrowed(self.config, self.widths)
        submodels = [
            _planned(f"submodel-{number}", group, config, len(self.classes), self.formats)
            for number, group in enumerate(groups)
        ]
        return replace(self, submodels=tuple(submodels))

    def fits(self, memory_mb: float | None) -> bool:
        """Whether a device, in MB, has room for any of the sub-models; None is not known and passes."""
        return memory_mb is None or all(part.memory_bytes <= memory_mb * _MEGABYTE for part in self.submodels)

    def check_memory(self, memory_mb: float | None) -> None:
        """Hold the largest sub-model against what each device has, in MB; None is not known and passes.

        Raises:
            PlanError: it is too large; the sentence says by how much.
        """
        if not self.fits(memory_mb):
            largest = max(self.submodels, key=lambda submodel: submodel.memory_bytes)
            needed = largest.memory_bytes / _MEGABYTE
            raise PlanError(
                f"{largest.id} needs about {needed:.1f} MB and a device has {memory_mb:g}: keep fewer heads "
                f"(--heads, now {self.widths.heads}) or split over more devices"
            )

    def to_json(self, memory_mb: float | None) -> dict[str, object]:
        """Sizes in bytes, MACs and, where the devices' memory is known, whether each sub-model fits."""
        return {
            "teacher": {
                "name": self.teacher,
                "parameters": self.config.parameters,
                "macs": self.config.macs,
                "f32_bytes": self.config.f32_bytes,
            },
            "blocks": self.widths.blocks,
            "heads": self.widths.heads,
            "width": self.widths.width,
            "mlp_units": self.widths.mlp_units,
            "submodels": [
                {
                    "id": submodel.id,
                    "classes": [self.classes[index] for index in submodel.group],
                    "parameters": submodel.config.parameters,
                    "macs": submodel.config.macs,
                    "f32_bytes": submodel.config.f32_bytes,
                    "bytes": submodel.bytes,
                    "arena_bytes": submodel.arena_bytes,
                    "fits": None if memory_mb is None else submodel.memory_bytes <= memory_mb * _MEGABYTE,
                }
                for submodel in self.submodels
            ],
        }


def plan_export(settings: ExportSettings) -> ExportPlan:
    """Plan an export. A preset needs no trained teacher for it.

    Raises:
        UsageError: more devices than classes, an unknown format, or one that is not for the target.
        ModelError: no such model.
        DataError: no such data.
        PlanError: the sub-models do not fit into their share of the teacher's bytes, or the model has less
            than the widths given keep.
    """
    for name in settings.formats:
        find(name)
    check_formats(settings.target, settings.formats)
    classes = class_names(settings.data)
    teacher, config = _teacher_config(settings.model, len(classes))
    groups = _planned_groups(settings, classes)
    widths = _planned_widths(settings, config)
    return ExportPlan(teacher, config, classes, widths, settings.formats, ()).with_groups(groups)


def _planned_widths(settings: ExportSettings, config: ViTConfig) -> Widths:
    """Those given, or uniform; where a shape is tried or each layer has its own, of about the same cost."""
    if (given := settings.given_widths) is not None:
        check_within(config, given)
        return given
    if settings.heads is not None:
        return uniform(config, settings.heads)
    if settings.widths == "bytes" and settings.budget is not None:
        logits = most_logits(config.classes, settings.devices)
        check_budget(config.with_classes(logits), Bytes(), settings.budget)
        try:
            return largest_within(config, settings.devices, int(settings.devices * settings.budget))
        except PlanError:
            return uniform(config, 1)  # single layers can be narrower than that
    return largest_within(config, settings.devices, int(settings.share * config.f32_bytes))


def _planned_groups(settings: ExportSettings, classes: tuple[str, ...]) -> Groups:
    if settings.groups in GROUPINGS:
        return random_balanced(len(classes), settings.devices, seed=settings.seed_for("split"))
    groups = by_hand(settings.groups, classes)
    if len(groups) != settings.devices:
        raise UsageError(
            f"--groups names {len(groups)} groups for {settings.devices} devices: name one for each"
        )
    return groups


def find_teacher(settings: ExportSettings, classes: tuple[str, ...]) -> Checkpoint:
    """The teacher of an export: a trained one, or with `random_weights` a preset's sizes alone.

    Raises:
        UsageError: random weights for what is no preset; or as `load_teacher`.
        ModelError: as `load_teacher`.
    """
    if not settings.random_weights:
        return load_teacher(settings.model, classes)
    if settings.model not in PRESETS:
        raise UsageError(f"--random-weights needs one of the presets {', '.join(PRESETS)} as --model")
    config = PRESETS[settings.model].with_classes(len(classes))
    weights = fresh_weights(config, seed=settings.seed_for("teacher"))
    return Checkpoint(config, weights, classes, {"random_weights": True})


def load_teacher(model: str, classes: tuple[str, ...]) -> Checkpoint:
    """The trained teacher: a preset's that ships, or a file of `edvit-tf train` or of Keras 2.

    Raises:
        ModelError: there is none, or it is broken.
        UsageError: it was trained on other classes than the data has.
    """
    if model in PRESETS:
        teacher = load(zoo.path(model))
    elif Path(model).suffix == ".keras":
        from edvit_tf.vit.model import load_keras

        teacher = load_keras(Path(model))
        if len(teacher.labels) == len(classes):  # Keras keeps no labels
            teacher = Checkpoint(teacher.config, teacher.weights, classes, teacher.details)
    else:
        _check_known(model)
        teacher = load(Path(model))
    if teacher.labels != classes:
        raise UsageError(
            f"{model} was trained on other classes ({_first_of(teacher.labels)}) than the data has "
            f"({_first_of(classes)}): give the data it was trained on, or train a model on this one"
        )
    return teacher


def _first_of(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:3]) + (" …" if len(labels) > 3 else "")


def _teacher_config(model: str, classes: int) -> tuple[str, ViTConfig]:
    if model in PRESETS:
        return model, PRESETS[model].with_classes(classes)
    if Path(model).suffix == ".keras":
        from edvit_tf.vit.model import load_keras

        return Path(model).stem, load_keras(Path(model)).config
    _check_known(model)
    return Path(model).stem, load(Path(model)).config


def _check_known(model: str) -> None:
    if not Path(model).suffix and not Path(model).exists():
        raise ModelError(
            f"There is no model {model}: give one of {', '.join(PRESETS)}, or a file made by 'edvit-tf train'"
        )


def _planned(
    name: str, group: tuple[int, ...], config: ViTConfig, classes: int, formats: tuple[str, ...]
) -> PlannedSubmodel:
    config = config.with_classes(logits_of_group(classes, group))
    shapes = weight_shapes(config).values()
    kernels = sum(math.prod(shape) for shape in shapes if len(shape) > 1)
    others = config.parameters - kernels
    largest = max(_BYTES_OF_A_WEIGHT[name] for name in formats)
    size = kernels * largest + others * 4 + _GRAPH_BYTES * len(config.blocks)
    return PlannedSubmodel(name, group, config, round(size), _arena_bytes(config))


def _arena_bytes(config: ViTConfig) -> int:
    """The widest step: the stem's first, or in a block the stream twice with attention or with the MLP."""
    tokens = config.tokens
    steps = [
        2 * tokens * config.width
        + max(
            3 * tokens * block.heads * config.head_size + 2 * block.heads * tokens**2,
            2 * tokens * block.mlp_units,
        )
        for block in config.blocks
    ]
    image, pixels = config.image, config.image.height * config.image.width
    if config.stem:
        steps.append(pixels * image.channels + pixels // STEM_STRIDE**2 * config.stem[0])
    return 4 * max(steps)
