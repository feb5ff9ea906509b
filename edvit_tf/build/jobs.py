"""The three kinds of work of an export that need TensorFlow: functions that the engine runs in processes."""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from edvit_converters.check import Facts, check, keras_answers
from edvit_converters.tflite import convert, convert_fusion
from numpy.typing import NDArray

from edvit_tf.build.data import Dataset, Split
from edvit_tf.build.engine import Report
from edvit_tf.build.fusion import FusionData, FusionSettings, calibrate, fuse, train_fusion
from edvit_tf.build.grouping import OTHER, logits_of_group
from edvit_tf.build.importance import fisher, proxy_images
from edvit_tf.build.retrain import GroupData, group_data, retrain
from edvit_tf.build.sparsity import sparsify, sparsity_of
from edvit_tf.build.surgery import cut, group_head
from edvit_tf.build.teacher import teacher_logits
from edvit_tf.build.training import Forward, Schedule, one_hot
from edvit_tf.build.widths import choose
from edvit_tf.build.work import FusionJob, MadeFusion, MadeSubmodel, SubmodelJob, TaughtTeacher, TeacherJob
from edvit_tf.build.workspace import Workspace
from edvit_tf.bundle.vector import Vector
from edvit_tf.runtime.ensemble import accuracy, run_many
from edvit_tf.runtime.fusion import softmax
from edvit_tf.runtime.interpreter import Flatbuffer
from edvit_tf.vit.checkpoint import Checkpoint
from edvit_tf.vit.model import from_checkpoint

_CHECKED_IMAGES = 16
_CALIBRATED_IMAGES = 128  # training pictures, for a format that fixes the scales of activations
_RETRAINED, _TRAINED, _CONVERTED = 0.75, 0.93, 0.96  # shares of a sub-model's time that are over by then
_SPARSITY_RATE = 0.5  # of the rate of retraining: the stage starts from a trained model
_FUSION_RATE = 2e-3


def teach(job: TeacherJob, report: Report) -> TaughtTeacher:
    """Run the teacher over a share of the training pictures."""
    report(0.0, "starting")
    images = job.workspace.split("train").images[job.start : job.stop]
    logits = teacher_logits(job.teacher, images, mirrored=job.workspace.mirrored)
    report(0.9, "converting" if job.convert else "done")
    if not job.convert:
        return TaughtTeacher(logits, None)
    flatbuffer = convert(job.teacher, "f32")
    _check_flatbuffer(flatbuffer, "f32", job.teacher, job.workspace)
    return TaughtTeacher(logits, flatbuffer)


def make_submodel(job: SubmodelJob, report: Report) -> MadeSubmodel:
    """Importance, widths, surgery, retraining, sparsity, conversion: one sub-model of ED-ViT.

    Its features of the training pictures (Keras) and of the validation pictures (flatbuffer) stay in the
    workspace for the fusion, as `<name>_train` f32 [n, views, width] and `<name>_validation` f32 [m, width].
    """
    clock = _Clock()
    dataset = job.workspace.dataset()
    report(0.0, "judging units")
    student = _cut_down(job, dataset)
    clock.lap("importance and surgery")

    data = group_data(
        dataset,
        job.workspace.read("teacher_logits"),
        job.group,
        distillation=job.settings.distillation,
        seed=job.settings.seed_for(job.name, "validation"),
        rows=job.rows,
    )
    student, retrained = _retrain(job, student, data, report)
    clock.lap("retraining")
    if job.settings.sparsity:
        student = _sparsify(job, student, data, report)
        clock.lap("sparsity")

    report(_TRAINED, "converting")
    images = dataset.train.images
    calibration = images[:: max(1, len(images) // _CALIBRATED_IMAGES)][:_CALIBRATED_IMAGES]
    flatbuffer = convert(student, job.settings.format, calibration)
    facts = _check_flatbuffer(flatbuffer, job.settings.format, student, job.workspace)
    clock.lap("conversion")

    report(_CONVERTED, "features")
    validation = run_many(flatbuffer, dataset.validation.images, threads=1)
    job.workspace.write(f"{job.name}_validation", validation.features)
    job.workspace.write(f"{job.name}_train", _train_features(student, dataset))
    clock.lap("features")

    return MadeSubmodel(
        name=job.name,
        group=job.group,
        config=student.config,
        flatbuffer=flatbuffer,
        partitions=facts.partitions,
        arena_bytes=facts.arena_bytes,
        operators=facts.operators,
        inputs=facts.inputs,
        outputs=facts.outputs,
        cosine=facts.cosine,
        vector=_vector(flatbuffer, dataset.validation, job.group),
        accuracy=accuracy(validation.logits[data.measured], data.labels),
        retrained_accuracy=retrained,
        sparsity=min(sparsity_of(student.weights).values()),
        rows=data.rows,
        seconds=clock.seconds,
    )


def _cut_down(job: SubmodelJob, dataset: Dataset) -> Checkpoint:
    """Judge the teacher's units by the group's own pictures, keep the best, and take the group's logits."""
    proxies = proxy_images(
        dataset.train.images,
        dataset.train.labels,
        job.group,
        per_class=job.settings.proxy_images,
        seed=job.settings.seed_for(job.name, "proxies"),
    )
    config, weights = job.teacher.config, job.teacher.weights
    importance = fisher(config, weights, proxies, seed=job.settings.seed_for(job.name, "importance"))
    config, weights = cut(config, weights, choose(importance, job.widths))
    others = logits_of_group(len(dataset.classes), job.group) > len(job.group)
    config, weights = group_head(config, weights, job.group, other=others)
    return Checkpoint(
        config, weights, tuple(dataset.classes[index] for index in job.group) + (OTHER,) * others
    )


def _retrain(
    job: SubmodelJob, student: Checkpoint, data: GroupData, report: Report
) -> tuple[Checkpoint, float]:
    settings = job.settings
    return retrain(
        student,
        data,
        Schedule(settings.epochs, settings.batch, settings.rate),
        seed=settings.seed_for(job.name, "retrain"),
        report=lambda done, message: report(_RETRAINED * done, f"retraining, {message}"),
    )


def _sparsify(job: SubmodelJob, student: Checkpoint, data: GroupData, report: Report) -> Checkpoint:
    settings = job.settings
    sparse, _ = sparsify(
        student,
        data,
        Schedule(settings.sparsity_epochs, settings.batch, settings.rate * _SPARSITY_RATE),
        settings.sparsity,
        seed=settings.seed_for(job.name, "sparsify"),
        report=lambda done, message: report(
            _RETRAINED + (_TRAINED - _RETRAINED) * done, f"sparsity, {message}"
        ),
    )
    return sparse


def _train_features(student: Checkpoint, dataset: Dataset) -> NDArray[np.float32]:
    """The Keras model's features of the training pictures, f32 [n, views, width]."""
    forward = Forward(from_checkpoint(student))
    images = dataset.train.images
    views = [images, images[:, :, ::-1]] if dataset.mirrored else [images]
    return np.stack([forward(view)["feature"] for view in views], axis=1)


def make_fusion(job: FusionJob, report: Report) -> MadeFusion:
    """Train, calibrate and convert the tower MLP."""
    report(0.0, "starting")
    workspace, settings = job.workspace, job.settings
    features = [np.asarray(workspace.read(f"{name}_train")) for name in job.names]
    validation = np.concatenate([workspace.read(f"{name}_validation") for name in job.names], axis=-1)
    labels = np.asarray(workspace.split("validation").labels)
    taught = softmax(np.asarray(workspace.read("teacher_logits")))
    truth = one_hot(workspace.split("train").labels, len(workspace.classes))[:, np.newaxis]
    data = FusionData(
        features=np.concatenate(features, axis=-1),
        targets=settings.distillation * taught + (1 - settings.distillation) * truth,
        validation=validation,
        labels=labels,
        sizes=tuple(part.shape[-1] for part in features),
    )
    schedule = Schedule(settings.fusion_epochs, settings.batch, _FUSION_RATE)
    model = train_fusion(data, FusionSettings(schedule), seed=settings.seed_for("fusion"), report=report)

    def reached(absent: int | None) -> float:
        present = np.arange(len(job.names)) != absent if absent is not None else np.ones(len(job.names), bool)
        return accuracy(fuse(model, validation, data.sizes, present), labels)

    return MadeFusion(
        flatbuffer=convert_fusion(model),
        weights=_named_weights(model),
        calibration=calibrate(model, validation, labels, data.sizes),
        accuracy=reached(None),
        missing={name: reached(index) for index, name in enumerate(job.names)} if len(job.names) > 1 else {},
    )


def _named_weights(model: Any) -> dict[str, NDArray[np.float32]]:
    return {
        f"{layer.name}/{variable.name.rsplit('/', 1)[-1].removesuffix(':0')}": variable.numpy()
        for layer in model.layers
        for variable in layer.weights
    }


def _check_flatbuffer(flatbuffer: bytes, format_name: str, model: Checkpoint, workspace: Workspace) -> Facts:
    images = np.asarray(workspace.split("validation").images[:_CHECKED_IMAGES])
    return check(flatbuffer, format_name, model.config, images, keras_answers(model, images))


def _vector(flatbuffer: bytes, validation: Split, group: tuple[int, ...]) -> Vector:
    image = np.asarray(validation.images[np.flatnonzero(validation.labels == group[0])[0]])
    answer = Flatbuffer(flatbuffer).run(image)
    return Vector(image=image, feature=answer.feature, logits=answer.logits)


@dataclass(slots=True)
class _Clock:
    """Seconds spent on each step."""

    seconds: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.monotonic)

    def lap(self, step: str) -> None:
        now = time.monotonic()
        self.seconds[step] = round(now - self._last, 2)
        self._last = now
