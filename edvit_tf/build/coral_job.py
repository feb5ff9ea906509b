"""A sub-model's student for an Edge TPU, stage by stage, as `submodel_job.py` makes the sub-model itself."""

from dataclasses import asdict

import numpy as np
from edvit_converters.check import check
from edvit_converters.edge_tpu import COMPILER, compile_model
from edvit_converters.targets import check_placed
from edvit_converters.tflite import convert_student
from safetensors.numpy import load_file, save_file

from edvit_tf.build.coral import distil, serving_student, student_of, student_with
from edvit_tf.build.data import Dataset
from edvit_tf.build.engine import Report
from edvit_tf.build.retrain import group_data
from edvit_tf.build.stages import CORAL, CORAL_CONVERT, EDGE_TPU
from edvit_tf.build.store import Result
from edvit_tf.build.training import Schedule
from edvit_tf.build.variants import (
    CALIBRATED_IMAGES,
    CHECKED_IMAGES,
    calibration_images,
    training_features,
    write_variant,
)
from edvit_tf.build.work import FLATBUFFER, MODEL, SubmodelJob, lessons, read_trained
from edvit_tf.runtime.ensemble import Answers

_DONE = 0.9  # share of the time to finish a sub-model that is over when its student begins


def make_student(job: SubmodelJob, dataset: Dataset, report: Report) -> None:
    """Distil and convert, where a student is wanted; what is stored is not made again."""
    recipe = job.recipes.coral
    if recipe is None:
        return
    trained = job.store.make(recipe, lambda result: _distil(job, dataset, result, report))
    job.store.make(
        job.recipes.variants[EDGE_TPU], lambda result: _convert(job, dataset, trained, result, report)
    )


def _distil(job: SubmodelJob, dataset: Dataset, result: Result, report: Report) -> None:
    settings = CORAL.settings_of(job.settings)
    data = group_data(
        dataset,
        lessons(job.store, job.taught, job.workspace, balance=settings.balance),
        job.group,
        distillation=settings.distillation,
        others=settings.others,
        balance=settings.balance,
        shift=0,
        seed=settings.seed_for(job.name, "validation"),
        rows=job.rows,
    )
    config = student_of(read_trained(job).config)
    weights, reached = distil(
        config,
        data,
        job.store.get(job.recipes.features).array("features"),
        Schedule(settings.epochs, settings.batch, settings.rate),
        seed=settings.seed_for(job.name, "coral"),
        report=lambda done, message: report(_DONE + (1 - _DONE) * done, f"student for a Coral, {message}"),
    )
    save_file(weights, result.path(MODEL))
    result.write_array("features", training_features(student_with(config, weights), dataset))
    result.write_facts({"accuracy": reached, "config": asdict(config)})


def _convert(job: SubmodelJob, dataset: Dataset, trained: Result, result: Result, report: Report) -> None:
    """In 8-bit integers, and held against Keras and against the Edge TPU's list."""
    settings = CORAL_CONVERT.settings_of(job.settings)
    submodel = read_trained(job).config
    config, weights = student_of(submodel), load_file(trained.path(MODEL))
    images = np.asarray(dataset.validation.images[:CHECKED_IMAGES])
    outputs = student_with(config, weights).predict_on_batch(images)
    expected = Answers(np.asarray(outputs["feature"]), np.asarray(outputs["logits"]))
    flatbuffer = convert_student(
        serving_student(config, weights), config.image, calibration_images(dataset, CALIBRATED_IMAGES)
    )
    facts = check(flatbuffer, EDGE_TPU, submodel, images, expected, trained=not settings.random_weights)
    check_placed(flatbuffer, "coral")
    compiled = compile_model(flatbuffer)
    if compiled is None:
        report(1.0, f"{COMPILER} is not here: {job.name} runs on a Coral once it has been compiled")
    write_variant(job, flatbuffer, asdict(facts), dataset, result)
    if compiled is not None:  # what it answers is what the integers said above
        result.path(FLATBUFFER).write_bytes(compiled)
