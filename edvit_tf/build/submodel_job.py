"""One sub-model of an export, stage by stage: a function that the engine runs in a process of its own."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import numpy as np
from edvit_converters.check import check, keras_answers
from edvit_converters.tflite import convert_all
from numpy.typing import NDArray

from edvit_tf.build.data import Dataset, Split
from edvit_tf.build.engine import Report
from edvit_tf.build.grouping import OTHER, logits_of_group, relabel
from edvit_tf.build.importance import Importance, divergence, fisher, proxy_images
from edvit_tf.build.latency import Milliseconds
from edvit_tf.build.layerwise import Bytes, Cost, choose_within, total
from edvit_tf.build.resume import Snapshots
from edvit_tf.build.retrain import GroupData, group_data, retrain
from edvit_tf.build.settings import ExportSettings
from edvit_tf.build.sparsity import sparsify, sparsity_of
from edvit_tf.build.stages import IMPORTANCE, RETRAIN, SPARSIFY, SURGERY
from edvit_tf.build.store import Result
from edvit_tf.build.surgery import Kept, cut, group_head
from edvit_tf.build.training import Forward, Schedule
from edvit_tf.build.widths import choose, narrowed
from edvit_tf.build.work import FLATBUFFER, MODEL, VECTOR, SubmodelJob, read_answers, read_checkpoint
from edvit_tf.bundle.vector import Vector, save_vector
from edvit_tf.runtime.ensemble import accuracy, run_many
from edvit_tf.runtime.interpreter import Flatbuffer
from edvit_tf.vit.checkpoint import Checkpoint, fresh_weights, save
from edvit_tf.vit.config import ViTConfig
from edvit_tf.vit.model import from_checkpoint

CHECKED_IMAGES = 16
_CALIBRATED_IMAGES = 128  # training pictures, for a format that fixes the scales of activations
_RETRAINED, _TRAINED, _CONVERTED = 0.75, 0.93, 0.96  # shares of a sub-model's time that are over by then
_SPARSITY_RATE = 0.5  # of the rate of retraining: the stage starts from a trained model
_IMPORTANCE_BATCH = 16
_IMPORTANCE_NUMBERS = 60_000_000  # activations that its gradient keeps at once, about four bytes each


def make_submodel(job: SubmodelJob, report: Report) -> None:
    """Importance, surgery, retraining, sparsity, conversion, features: what is stored is not made again."""
    store, recipes = job.store, job.recipes
    dataset = job.workspace.dataset()
    report(0.0, "judging units")
    store.make(recipes.importance, lambda result: _judge(job, dataset, result))
    store.make(recipes.cut, lambda result: _cut(job, result))
    store.make(recipes.retrained, lambda result: _retrain(job, dataset, result, report))
    if recipes.sparse is not None:
        store.make(recipes.sparse, lambda result: _sparsify(job, dataset, result, report))
    student = read_checkpoint(store.get(recipes.trained))
    report(_TRAINED, "converting")
    _convert(job, student, dataset)
    report(_CONVERTED, "features")
    store.make(
        recipes.features, lambda result: result.write_array("features", _train_features(student, dataset))
    )


def _judge(job: SubmodelJob, dataset: Dataset, result: Result) -> None:
    """Judge the teacher's units by the group's own pictures."""
    settings = IMPORTANCE.settings_of(job.settings)
    teacher = read_checkpoint(job.store.get(job.taught.teacher))
    proxies = proxy_images(
        dataset.train.images,
        dataset.train.labels,
        job.group,
        per_class=settings.proxy_images,
        seed=settings.seed_for(job.name, "proxies"),
    )
    if settings.importance == "kl":
        found = divergence(teacher.config, teacher.weights, proxies)
    else:
        seed = settings.seed_for(job.name, "importance")
        batch = _importance_batch(teacher)
        found = fisher(teacher.config, teacher.weights, proxies, seed=seed, batch_size=batch)
    result.write_array("residual", found.residual)
    for index, (heads, mlp) in enumerate(zip(found.heads, found.mlp, strict=True)):
        result.write_array(f"heads-{index}", heads)
        result.write_array(f"mlp-{index}", mlp)


def _importance_batch(teacher: Checkpoint) -> int:
    """As many pictures at once as their activations leave memory for: the scores stay the same."""
    config = teacher.config
    a_block = max(
        config.tokens * (8 * config.width + 4 * block.heads * config.head_size + 3 * block.mlp_units)
        + 3 * block.heads * config.tokens**2
        for block in config.blocks
    )
    return max(1, min(_IMPORTANCE_BATCH, _IMPORTANCE_NUMBERS // (a_block * len(config.blocks))))


def _cut(job: SubmodelJob, result: Result) -> None:
    """Keep the units that are worth most, or only the sizes, and take the group's logits."""
    scores = job.store.get(job.recipes.importance)
    teacher = read_checkpoint(job.store.get(job.taught.teacher))
    blocks = range(len(teacher.config.blocks))
    importance = Importance(
        scores.array("residual"),
        tuple(scores.array(f"heads-{index}") for index in blocks),
        tuple(scores.array(f"mlp-{index}") for index in blocks),
    )
    settings = SURGERY.settings_of(job.settings)
    others = logits_of_group(len(job.workspace.classes), job.group) > len(job.group)
    whole = teacher.config.with_classes(len(job.group) + others)
    config, weights = cut(teacher.config, teacher.weights, _kept(job, settings, importance, whole))
    config, weights = group_head(config, weights, job.group, other=others)
    if settings.start == "random":
        weights = fresh_weights(config, seed=settings.seed_for(job.name, "start"))
    labels = tuple(job.workspace.classes[index] for index in job.group) + (OTHER,) * others
    save(result.path(MODEL), Checkpoint(config, weights, labels))


def _kept(job: SubmodelJob, settings: ExportSettings, importance: Importance, whole: ViTConfig) -> Kept:
    """Uniform widths, or those of each layer that cost as much as the uniform ones, or the budget."""
    if settings.widths == "uniform":
        return choose(importance, job.widths)
    cost: Cost = Bytes()
    if job.recipes.latency is not None:
        cost = Milliseconds(**job.store.get(job.recipes.latency).facts["coefficients"])
    budget = settings.budget or total(cost, narrowed(whole, job.widths))
    return choose_within(importance, whole, cost, budget)


def _group_data(job: SubmodelJob, settings: ExportSettings, dataset: Dataset) -> GroupData:
    return group_data(
        dataset,
        read_answers(job.store, job.taught),
        job.group,
        distillation=settings.distillation,
        others=settings.others,
        seed=settings.seed_for(job.name, "validation"),
        rows=job.rows,
    )


def _retrain(job: SubmodelJob, dataset: Dataset, result: Result, report: Report) -> None:
    settings = RETRAIN.settings_of(job.settings)
    data = _group_data(job, settings, dataset)
    student, reached = retrain(
        read_checkpoint(job.store.get(job.recipes.cut)),
        data,
        Schedule(settings.epochs, settings.batch, settings.rate),
        matching=settings.matching,
        seed=settings.seed_for(job.name, "retrain"),
        report=_part(report, 0.0, _RETRAINED, "retraining"),
        snapshots=Snapshots(job.store.unfinished(job.recipes.retrained)),
    )
    save(result.path(MODEL), student)
    result.write_array("measured", data.measured)
    result.write_facts({"accuracy": reached, "rows": data.rows, "sparsity": _sparsity(student)})


def _sparsify(job: SubmodelJob, dataset: Dataset, result: Result, report: Report) -> None:
    assert job.recipes.sparse is not None  # noqa: S101  the caller looked
    settings = SPARSIFY.settings_of(job.settings)
    sparse, _ = sparsify(
        read_checkpoint(job.store.get(job.recipes.retrained)),
        _group_data(job, settings, dataset),
        Schedule(settings.sparsity_epochs, settings.batch, settings.rate * _SPARSITY_RATE),
        settings.sparsity,
        seed=settings.seed_for(job.name, "sparsify"),
        report=_part(report, _RETRAINED, _TRAINED, "sparsity"),
        snapshots=Snapshots(job.store.unfinished(job.recipes.sparse)),
    )
    save(result.path(MODEL), sparse)
    result.write_facts({"sparsity": _sparsity(sparse)})


def _sparsity(model: Checkpoint) -> float:
    return min(sparsity_of(model.weights).values())


def _convert(job: SubmodelJob, student: Checkpoint, dataset: Dataset) -> None:
    """Every format that is not there yet; they share one conversion to f32."""
    waiting = {name: recipe for name, recipe in job.recipes.variants.items() if recipe not in job.store}
    if not waiting:
        return
    images = np.asarray(dataset.validation.images[:CHECKED_IMAGES])
    expected = keras_answers(student, images)
    training = dataset.train.images
    calibration = training[:: max(1, len(training) // _CALIBRATED_IMAGES)][:_CALIBRATED_IMAGES]
    for name, flatbuffer in convert_all(student, tuple(waiting), calibration).items():
        facts = check(flatbuffer, name, student.config, images, expected)
        job.store.make(
            waiting[name],
            partial(_write_variant, job, flatbuffer, asdict(facts), dataset),
        )


def _write_variant(
    job: SubmodelJob, flatbuffer: bytes, facts: dict[str, object], dataset: Dataset, result: Result
) -> None:
    """The flatbuffer with what the manifest says of it, its vector, and its features of validation."""
    validation = dataset.validation
    answers = run_many(flatbuffer, validation.images, threads=1)
    result.path(FLATBUFFER).write_bytes(flatbuffer)
    save_vector(result.path(VECTOR), _vector(flatbuffer, validation, job.group))
    result.write_array("features", answers.features)
    measured = job.store.get(job.recipes.retrained).array("measured")
    labels = relabel(validation.labels, job.group)[measured]
    result.write_facts(facts | {"accuracy": accuracy(answers.logits[measured], labels)})


def _train_features(student: Checkpoint, dataset: Dataset) -> NDArray[np.float32]:
    """The Keras model's features of the training pictures, f32 [n, views, width]."""
    forward = Forward(from_checkpoint(student))
    images = dataset.train.images
    views = [images, images[:, :, ::-1]] if dataset.mirrored else [images]
    return np.stack([forward(view)["feature"] for view in views], axis=1)


def _vector(flatbuffer: bytes, validation: Split, group: tuple[int, ...]) -> Vector:
    image = np.asarray(validation.images[np.flatnonzero(validation.labels == group[0])[0]])
    answer = Flatbuffer(flatbuffer).run(image)
    return Vector(image=image, feature=answer.feature, logits=answer.logits)


def _part(report: Report, start: float, stop: float, what: str) -> Callable[[float, str], None]:
    """A stage's own progress as a part of the whole job's."""
    return lambda done, message: report(start + (stop - start) * done, f"{what}, {message}")
