"""One sub-model of an export, stage by stage: functions that the engine runs in processes of their own."""

from dataclasses import asdict, replace
from functools import partial

import numpy as np
from edvit_converters.check import check, keras_answers
from edvit_converters.targets import check_placed, target_of
from edvit_converters.tflite import convert_all

from edvit_tf.build.augment import augmentation
from edvit_tf.build.coral_job import make_student
from edvit_tf.build.data import Dataset
from edvit_tf.build.engine import Report
from edvit_tf.build.grouping import logits_of_group
from edvit_tf.build.importance import Importance
from edvit_tf.build.importance_job import read_importance
from edvit_tf.build.latency import Milliseconds
from edvit_tf.build.layerwise import Bytes, Cost, choose_within, total
from edvit_tf.build.resume import Snapshots
from edvit_tf.build.retrain import GroupData, group_data, retrain, with_weights
from edvit_tf.build.settings import AUTO, ExportSettings
from edvit_tf.build.sparsity import sparsify, sparsity_of
from edvit_tf.build.stages import CONVERT, EDGE_TPU, QUANTISE, RETRAIN, SPARSIFY, SURGERY
from edvit_tf.build.store import Recipe, Result
from edvit_tf.build.surgery import Kept, cut, of_group
from edvit_tf.build.training import Schedule
from edvit_tf.build.variants import (
    CALIBRATED_IMAGES,
    CHECKED_IMAGES,
    calibration_images,
    training_features,
    write_variant,
)
from edvit_tf.build.widths import choose, narrowed
from edvit_tf.build.work import (
    MODEL,
    SubmodelJob,
    lessons,
    read_checkpoint,
    read_trained,
)
from edvit_tf.errors import ModelError
from edvit_tf.vit.checkpoint import Checkpoint, fresh_weights, save
from edvit_tf.vit.config import ViTConfig
from edvit_tf.vit.model import from_checkpoint

_RANGED_IMAGES = 128  # of them, that the ranges of quantisation-aware training start from
_DENSE = 0.75  # share of the time to retrain a sub-model that is over when zeros begin
_TRAINED = 0.8  # share of the time to make a sub-model that is over when it is rounded
_ROUNDED, _CONVERTED = 0.75, 0.9  # shares of the rest that are over by then
_SPARSITY_RATE, _QUANTISED_RATE = 0.5, 0.25  # of the rate of retraining: they start from a trained model


def make_submodel(job: SubmodelJob, report: Report) -> None:
    """All of a sub-model, from its weights to its flatbuffers: what is stored is not made again."""
    if job.recipes.unrounded not in job.store:
        retrain_submodel(job, lambda done, message: report(_TRAINED * done, message))
    _finish(job, lambda done, message: report(_TRAINED + (1 - _TRAINED) * done, message))


def retrain_submodel(job: SubmodelJob, report: Report) -> None:
    """Surgery or a branch, retraining, sparsity: all that a student which is only tried or copied needs."""
    store, recipes = job.store, job.recipes
    dataset = job.workspace.dataset()
    if recipes.common is None:
        store.make(recipes.start, lambda result: _cut(job, result))
    else:
        common = recipes.common
        store.make(recipes.start, lambda result: _branch(job, common, result))
    alone = report if recipes.sparse is None else lambda done, message: report(_DENSE * done, message)
    store.make(recipes.retrained, lambda result: _retrain(job, dataset, result, alone))
    if recipes.sparse is not None:
        store.make(recipes.sparse, lambda result: _sparsify(job, dataset, result, report))


def _finish(job: SubmodelJob, report: Report) -> None:
    """Rounding, conversion, features."""
    store, recipes = job.store, job.recipes
    dataset = job.workspace.dataset()
    if recipes.quantised is not None:
        store.make(recipes.quantised, lambda result: _quantise(job, dataset, result, report))
    student = read_trained(job)
    report(_ROUNDED, "converting")
    _convert(job, student, dataset)
    report(_CONVERTED, "features")
    store.make(
        recipes.features,
        lambda result: result.write_array("features", training_features(from_checkpoint(student), dataset)),
    )
    make_student(job, dataset, report)


def _cut(job: SubmodelJob, result: Result) -> None:
    """Keep the units that are worth most, or only the sizes, and take the group's logits."""
    teacher = read_checkpoint(job.store.get(job.taught.teacher))
    importance = read_importance(job.store, job.taught, job.group, teacher.config)
    settings = SURGERY.settings_of(job.settings)
    whole = teacher.config.with_classes(logits_of_group(len(teacher.labels), job.group))
    config, weights = cut(teacher.config, teacher.weights, _kept(job, settings, importance, whole))
    smaller = of_group(Checkpoint(config, weights, teacher.labels), job.group)
    if settings.start == "random":
        smaller = with_weights(
            smaller, fresh_weights(smaller.config, seed=settings.seed_for(job.name, "start"))
        )
    save(result.path(MODEL), smaller)


def _branch(job: SubmodelJob, common: Recipe, result: Result) -> None:
    """Start from the student of all classes, with the group's logits."""
    save(result.path(MODEL), of_group(read_checkpoint(job.store.get(common)), job.group))


def _kept(job: SubmodelJob, settings: ExportSettings, importance: Importance, whole: ViTConfig) -> Kept:
    """The job's widths, or those of each layer that cost as much as the uniform ones, or the budget.

    The stem's widths are uniform either way.
    """
    uniform = choose(importance, job.widths)
    if settings.layerwise is None:
        return uniform
    cost: Cost = Bytes()
    if job.recipes.latency is not None:
        cost = Milliseconds(**job.store.get(job.recipes.latency).facts["coefficients"])
    budget = settings.budget or total(cost, narrowed(whole, job.widths))
    return replace(
        choose_within(importance, replace(whole, stem=job.widths.stem), cost, budget), stem=uniform.stem
    )


def _group_data(job: SubmodelJob, settings: ExportSettings, dataset: Dataset) -> GroupData:
    return group_data(
        dataset,
        lessons(job.store, job.taught, job.workspace, balance=settings.balance),
        job.group,
        distillation=settings.distillation,
        others=settings.others,
        balance=settings.balance,
        shift=settings.shift,
        seed=settings.seed_for(job.name, "validation"),
        rows=job.rows,
    )


def _retrain(job: SubmodelJob, dataset: Dataset, result: Result, report: Report) -> None:
    settings = RETRAIN.settings_of(job.settings)
    data = _group_data(job, settings, dataset)
    student, reached = retrain(
        read_checkpoint(job.store.get(job.recipes.start)),
        data,
        Schedule(settings.epochs, settings.batch, settings.rate, cool_down=job.cool_down),
        matching=settings.matching,
        seed=settings.seed_for(job.name, "retrain"),
        report=report,
        snapshots=Snapshots(job.store.unfinished(job.recipes.retrained)),
        augment=augmentation(settings.augment),
    )
    save(result.path(MODEL), student)
    result.write_array("measured", data.measured)
    result.write_facts({"accuracy": reached, "rows": data.rows})


def _sparsify(job: SubmodelJob, dataset: Dataset, result: Result, report: Report) -> None:
    recipes = job.recipes
    assert recipes.sparse is not None  # noqa: S101  the caller looked
    settings = SPARSIFY.settings_of(job.settings)
    sparse, _ = sparsify(
        read_checkpoint(job.store.get(recipes.retrained)),
        _group_data(job, settings, dataset),
        Schedule(settings.sparsity_epochs, settings.batch, settings.rate * _SPARSITY_RATE),
        settings.sparsity,
        seed=settings.seed_for(job.name, "sparsify"),
        report=lambda done, message: report(_DENSE + (1 - _DENSE) * done, f"sparsity, {message}"),
        snapshots=Snapshots(job.store.unfinished(recipes.sparse)),
    )
    save(result.path(MODEL), sparse)
    result.write_facts({"sparsity": min(sparsity_of(sparse.weights).values())})


def _quantise(job: SubmodelJob, dataset: Dataset, result: Result, report: Report) -> None:
    # TF-MOT takes seconds to import.
    from edvit_tf.build.quantisation import better_in_integers, train_quantised

    assert job.recipes.quantised is not None  # noqa: S101  the caller looked
    settings = QUANTISE.settings_of(job.settings)
    before = read_checkpoint(job.store.get(job.recipes.unrounded))
    data = _group_data(job, settings, dataset)
    quantised, _ = train_quantised(
        before,
        data,
        Schedule(settings.qat_epochs, settings.batch, settings.rate * _QUANTISED_RATE),
        calibration_images(dataset, _RANGED_IMAGES),
        matching=settings.matching,
        seed=settings.seed_for(job.name, "quantise"),
        report=lambda done, message: report(_ROUNDED * done, f"quantisation, {message}"),
        snapshots=Snapshots(job.store.unfinished(job.recipes.quantised)),
    )
    calibration = calibration_images(dataset, CALIBRATED_IMAGES)
    kept, (without, trained) = better_in_integers((before, quantised), data, calibration)
    save(result.path(MODEL), kept)
    result.write_facts({"without": without, "trained": trained})


def _convert(job: SubmodelJob, student: Checkpoint, dataset: Dataset) -> None:
    """Every format that is not there yet; they share one conversion to f32."""
    waiting = {
        name: recipe
        for name, recipe in job.recipes.variants.items()
        if name != EDGE_TPU and recipe not in job.store
    }
    if not waiting:
        return
    images = np.asarray(dataset.validation.images[:CHECKED_IMAGES])
    expected = keras_answers(student, images)
    settings = CONVERT.settings_of(job.settings)
    calibration = calibration_images(dataset, CALIBRATED_IMAGES)
    for name, flatbuffer in convert_all(student, tuple(waiting), calibration).items():
        try:
            facts = check(
                flatbuffer, name, student.config, images, expected, trained=not settings.random_weights
            )
            check_placed(flatbuffer, target_of(name, settings.target))
        except ModelError as error:
            if job.settings.format != AUTO:
                raise
            job.store.make(waiting[name], partial(Result.write_facts, facts={"refused": error.message}))
            continue
        job.store.make(
            waiting[name],
            partial(write_variant, job, flatbuffer, asdict(facts), dataset),
        )
