"""The three kinds of work of an export that need TensorFlow: functions that the engine runs in processes."""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from edvit_converters.check import Facts, check, keras_answers
from edvit_converters.tflite import convert, convert_fusion
from numpy.typing import NDArray

from edvit_tf.build.engine import Report
from edvit_tf.build.fusion import FusionData, FusionSettings, calibrate, fuse, train_fusion
from edvit_tf.build.grouping import OTHER, logits_of_group
from edvit_tf.build.importance import fisher, proxy_images
from edvit_tf.build.retrain import RetrainSettings, group_data, retrain
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
    settings, teacher, group = job.settings, job.teacher, job.group
    dataset = job.workspace.dataset()
    labels = tuple(dataset.classes[index] for index in group)

    report(0.0, "judging units")
    proxies = proxy_images(
        dataset.train.images,
        dataset.train.labels,
        group,
        per_class=settings.proxy_images,
        seed=settings.seed_for(job.name, "proxies"),
    )
    importance = fisher(
        teacher.config, teacher.weights, proxies, seed=settings.seed_for(job.name, "importance")
    )
    kept = choose(importance, job.widths)
    clock.lap("importance")

    config, weights = cut(teacher.config, teacher.weights, kept)
    others = logits_of_group(len(dataset.classes), group) > len(group)
    config, weights = group_head(config, weights, group, other=others)
    student = Checkpoint(config, weights, labels + (OTHER,) * others)
    data = group_data(
        dataset,
        job.workspace.read("teacher_logits"),
        group,
        distillation=settings.distillation,
        seed=settings.seed_for(job.name, "validation"),
        rows=job.rows,
    )
    epochs = settings.epochs + (settings.sparsity_epochs if settings.sparsity else 0)

    def report_epochs(before: int, count: int, what: str) -> Report:
        return lambda done, message: report(0.95 * (before + done * count) / epochs, f"{what}, {message}")

    schedule = Schedule(settings.epochs, settings.batch, settings.rate)
    student, retrained = retrain(
        student,
        data,
        RetrainSettings(schedule, settings.distillation),
        seed=settings.seed_for(job.name, "retrain"),
        report=report_epochs(0, settings.epochs, "retraining"),
    )
    clock.lap("retrain")

    if settings.sparsity:
        schedule = Schedule(settings.sparsity_epochs, settings.batch, settings.rate * _SPARSITY_RATE)
        student, _ = sparsify(
            student,
            data,
            RetrainSettings(schedule, settings.distillation),
            settings.sparsity,
            seed=settings.seed_for(job.name, "sparsify"),
            report=report_epochs(settings.epochs, settings.sparsity_epochs, "sparsity"),
        )
        clock.lap("sparsify")

    report(0.95, "converting")
    flatbuffer = convert(student, settings.format)
    facts = _check_flatbuffer(flatbuffer, settings.format, student, job.workspace)
    validation = run_many(flatbuffer, dataset.validation.images, threads=1)
    clock.lap("convert")

    report(0.97, "features")
    forward = Forward(from_checkpoint(student))
    images = dataset.train.images
    views = [images, images[:, :, ::-1]] if dataset.mirrored else [images]
    job.workspace.write(f"{job.name}_train", np.stack([forward(view)["feature"] for view in views], axis=1))
    job.workspace.write(f"{job.name}_validation", validation.features)
    clock.lap("features")

    return MadeSubmodel(
        name=job.name,
        group=group,
        config=student.config,
        flatbuffer=flatbuffer,
        partitions=facts.partitions,
        arena_bytes=facts.arena_bytes,
        operators=facts.operators,
        inputs=facts.inputs,
        outputs=facts.outputs,
        cosine=facts.cosine,
        vector=_vector(flatbuffer, dataset.validation.images, dataset.validation.labels, group),
        accuracy=accuracy(validation.logits[data.measured], data.labels),
        retrained_accuracy=retrained,
        sparsity=min(sparsity_of(student.weights).values()),
        rows=data.rows,
        seconds=clock.seconds,
    )


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


def _vector(
    flatbuffer: bytes, images: NDArray[np.uint8], labels: NDArray[np.int64], group: tuple[int, ...]
) -> Vector:
    image = np.asarray(images[np.flatnonzero(labels == group[0])[0]])
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
