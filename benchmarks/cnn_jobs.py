"""The rows of convolutional networks: what is trained for each, in processes of its own, kept in the store.

They take the pictures, the teacher's answers, the groups, the budget of bytes and the schedule of an export,
so that only the network differs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from edvit_tf.build.data import Dataset, class_names, load, mean_and_deviation
from edvit_tf.build.engine import Job, Report, run
from edvit_tf.build.export import keep_inputs
from edvit_tf.build.grouping import logits_of_group
from edvit_tf.build.plan import load_teacher
from edvit_tf.build.progress import Progress
from edvit_tf.build.settings import ExportSettings
from edvit_tf.build.stages import Stage, SubmodelRecipes, TeacherRecipes, of_fusion
from edvit_tf.build.store import Recipe, Result, Store, open_store
from edvit_tf.build.work import FLATBUFFER, MODEL, FusionJob, TeacherJob
from edvit_tf.build.workspace import Workspace
from edvit_tf.bundle.manifest import Calibration
from edvit_tf.runtime.ensemble import Answers, run_many
from edvit_tf.runtime.fusion import softmax
from edvit_tf.runtime.interpreter import Flatbuffer
from edvit_tf.vit.checkpoint import Weights

if TYPE_CHECKING:  # TensorFlow is for the workers
    from benchmarks.cnn import CnnConfig

TEACHER_FILTERS = 24
"""Filters of the CNN teacher's first convolution; its widest layer has four times as many."""

TEACHER_EPOCHS = 12
_HERE = "benchmarks.cnn_jobs"
_TRAINING = (
    "epochs", "batch", "rate", "distillation", "matching", "others", "balance", "shift",
    "proxy_images", "seed",
)  # fmt: skip
_TRAINED = Stage(
    "cnn",
    _TRAINING,
    (
        "benchmarks.cnn", _HERE, "edvit_tf.build.retrain", "edvit_tf.build.training",
        "edvit_tf.build.grouping", "edvit_tf.build.balance", "edvit_tf.build.importance",
    ),
)  # fmt: skip
_ANSWERED = Stage("cnn-answers", (), ("benchmarks.cnn", _HERE, "edvit_tf.build.training"))
_CONVERTED = Stage("cnn-convert", (), ("benchmarks.cnn", _HERE, "edvit_converters"))


@dataclass(frozen=True, slots=True)
class CnnJob:
    """Train one network for a group of classes.

    Attributes:
        name: of its seeds.
        recipes: its results in the store; all but the flatbuffers are one.
        group: classes; with fewer than all of them there is one more logit, "other".
        epochs: of training.
        most_bytes: of its f32 flatbuffer; None for the size of the CNN teacher.
        teacher: what it is cut from; None for fresh weights.
        answers: the logits that it is distilled from; empty for labels alone.
        store, workspace, settings: of the export.
    """

    name: str
    recipes: SubmodelRecipes
    group: tuple[int, ...]
    epochs: int
    most_bytes: int | None
    teacher: Recipe | None
    answers: tuple[Recipe, ...]
    store: Store
    workspace: Workspace
    settings: ExportSettings


@dataclass(frozen=True, slots=True)
class Network:
    """A trained network: its flatbuffers by format, parameters and multiply-accumulates."""

    flatbuffers: Mapping[str, Path]
    parameters: int
    macs: int


@dataclass(frozen=True, slots=True)
class Networks:
    """What a row is measured on.

    Attributes:
        parts: one network, or one for each group.
        fusion: the flatbuffer over the parts' features; None for one network.
        calibration: of the fusion.
    """

    parts: tuple[Network, ...]
    fusion: Path | None
    calibration: tuple[Calibration, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each part."""
        return tuple(f"cnn-{number}" for number in range(len(self.parts)))

    def answers(self, images: NDArray[np.uint8], format_name: str) -> dict[str, Answers]:
        """What every part says of images uint8 [n, h, w, c]."""
        return {
            name: run_many(part.flatbuffers[format_name], images)
            for name, part in zip(self.names, self.parts, strict=True)
        }

    def probabilities(self, answers: Mapping[str, Answers], present: Sequence[str]) -> NDArray[np.float32]:
        """Probabilities f32 [n, classes] when only the parts `present` answer."""
        if self.fusion is None:
            return softmax(answers[present[0]].logits)
        loaded = Flatbuffer(self.fusion)
        weights = np.asarray([[name in present for name in self.names]], np.float32)
        rows = np.concatenate([answers[name].features * (name in present) for name in self.names], axis=1)
        logits = [
            loaded.call({"features": row[np.newaxis].astype(np.float32), "present": weights})["logits"][0]
            for row in rows
        ]
        missing = len(self.names) - len(present)
        temperature = next(entry.temperature for entry in self.calibration if entry.missing == missing)
        return softmax(np.asarray(np.stack(logits) / temperature, np.float32))


def train_networks(
    method: str,
    settings: ExportSettings,
    *,
    groups: Sequence[tuple[int, ...]],
    most_bytes: int,
    single_epochs: int,
    progress: Progress,
) -> Networks:
    """Make `single_cnn`, `cnn_split` or `cnn_teacher`, or take up what is there.

    Args:
        method: which of them.
        settings: of the export whose sub-models they stand beside.
        groups: classes of each sub-model.
        most_bytes: of a sub-model's f32 flatbuffer.
        single_epochs: passes over all pictures that give one network the steps of all sub-models together.
        progress: told how far it is.
    """
    teacher = load_teacher(settings.model, class_names(settings.data))
    dataset = load(settings.data, seed=settings.seed, image=teacher.config.image)
    with open_store(settings.cache_folder) as store:
        work = _Work(settings, store, progress, *keep_inputs(settings, store, dataset, teacher))
        everything = tuple(range(len(dataset.classes)))
        if method == "single_cnn":
            work.teach()
            single = work.job("single", everything, single_epochs, most_bytes, answers=work.taught.answers)
            return work.networks([single], None)
        cnn_teacher = work.job("teacher", everything, TEACHER_EPOCHS, None)
        work.train([cnn_teacher])
        if method == "cnn_teacher":
            return work.networks([cnn_teacher], None)
        answers = _ANSWERED.recipe(settings, cnn_teacher.recipes.trained, work.taught.data)
        answering = replace(cnn_teacher, teacher=cnn_teacher.recipes.trained, answers=(answers,))
        work.run([Job("CNN teacher's answers", f"{_HERE}:answer", answering)], answers)
        parts = [
            work.job(
                f"part-{number}",
                group,
                settings.epochs,
                most_bytes,
                teacher=cnn_teacher.recipes.trained,
                answers=(answers,),
            )
            for number, group in enumerate(groups)
        ]
        work.train(parts)
        taught = replace(work.taught, answers=(answers,))
        recipes = {part.name: part.recipes for part in parts}
        fusion = of_fusion(settings, taught, recipes)
        job = FusionJob(fusion, recipes, taught, store, work.workspace, settings)
        work.run([Job("fusion", "edvit_tf.build.fusion_job:make_fusion", job)], fusion)
        return work.networks(parts, fusion)


@dataclass(frozen=True, slots=True)
class _Work:
    settings: ExportSettings
    store: Store
    progress: Progress
    taught: TeacherRecipes
    workspace: Workspace

    def run(self, jobs: Sequence[Job], *recipes: Recipe) -> None:
        wanted = [job for job, recipe in zip(jobs, recipes, strict=True) if recipe not in self.store]
        run(wanted, workers=self.settings.workers, stage="sub-models", progress=self.progress)

    def teach(self) -> None:
        """The ViT teacher's answers, as the export keeps them."""
        taught = self.taught
        jobs = [
            Job(
                "teacher",
                "edvit_tf.build.teacher_jobs:answer",
                TeacherJob(recipe, taught, self.store, self.workspace, rows),
            )
            for rows, recipe in zip(taught.rows, taught.answers, strict=True)
        ]
        self.run(jobs, *taught.answers)

    def job(
        self,
        name: str,
        group: tuple[int, ...],
        epochs: int,
        most_bytes: int | None,
        *,
        teacher: Recipe | None = None,
        answers: tuple[Recipe, ...] = (),
    ) -> CnnJob:
        inputs = [self.taught.data, *answers, *([teacher] if teacher else [])]
        trained = _TRAINED.recipe(
            self.settings, *inputs, name=name, group=group, epochs=epochs, most_bytes=most_bytes
        )
        variants = {
            entry: _CONVERTED.recipe(self.settings, trained, self.taught.data, format=entry)
            for entry in self.settings.formats
        }
        return CnnJob(
            name,
            SubmodelRecipes(None, None, trained, trained, None, None, variants, trained),
            group,
            epochs,
            most_bytes,
            teacher,
            answers,
            self.store,
            self.workspace,
            self.settings,
        )

    def train(self, jobs: Sequence[CnnJob]) -> None:
        wanted = [
            Job(job.name, f"{_HERE}:train", job)
            for job in jobs
            if any(recipe not in self.store for recipe in job.recipes.last)
        ]
        run(wanted, workers=self.settings.workers, stage="sub-models", progress=self.progress)

    def networks(self, jobs: Sequence[CnnJob], fusion: Recipe | None) -> Networks:
        self.train(jobs)
        calibration: tuple[Calibration, ...] = ()
        flatbuffer = None
        if fusion is not None:
            made = self.store.get(fusion)
            flatbuffer = made.path(FLATBUFFER)
            calibration = tuple(Calibration(**entry) for entry in made.facts["calibration"])
        return Networks(tuple(_network(self.store, job.recipes) for job in jobs), flatbuffer, calibration)


def _network(store: Store, recipes: SubmodelRecipes) -> Network:
    facts = store.get(recipes.trained).facts
    files = {name: store.get(recipe).path(FLATBUFFER) for name, recipe in recipes.variants.items()}
    return Network(files, facts["parameters"], facts["macs"])


def train(job: CnnJob, report: Report) -> None:
    """Train one network, the best epoch on validation kept; with a teacher its filters are pruned first."""
    trained = job.store.make(job.recipes.trained, lambda result: _train(job, result, report))
    for name, recipe in job.recipes.variants.items():
        job.store.make(recipe, partial(_convert, job, trained, name))


def _train(job: CnnJob, result: Result, report: Report) -> None:
    from benchmarks import cnn
    from edvit_tf.build.resume import Best, Snapshots
    from edvit_tf.build.retrain import group_data, train_on_group
    from edvit_tf.build.training import Forward, Schedule
    from edvit_tf.vit.keras import keras
    from edvit_tf.vit.model import read_weights, write_weights

    settings, dataset = _TRAINED.settings_of(job.settings), job.workspace.dataset()
    classes = len(dataset.classes)
    taught = [job.store.get(recipe).array("logits") for recipe in job.answers]
    views = 2 if dataset.mirrored else 1
    logits = np.concatenate(taught) if taught else np.zeros((len(dataset.train), views, classes), np.float32)
    data = group_data(
        dataset,
        logits,
        job.group,
        distillation=settings.distillation if taught else 0.0,
        others=settings.others,
        balance=settings.balance,
        shift=settings.shift,
        seed=settings.seed_for(job.name, "validation"),
    )
    seed = settings.seed_for(f"cnn-{job.name}", "train")
    keras.utils.set_random_seed(seed)
    report(0.0, "sizes")
    config, weights = _start(job, dataset, logits_of_group(classes, job.group))
    model = cnn.build(config)
    if weights:
        write_weights(model, weights)
    best = Best(read_weights(model))
    train_on_group(
        model,
        data,
        Schedule(job.epochs, settings.batch, settings.rate),
        best,
        matching=settings.matching if taught else 0.0,
        seed=seed,
        report=report,
        snapshots=Snapshots(job.store.unfinished(job.recipes.trained)),
    )
    write_weights(model, dict(best.weights))
    save_file(dict(best.weights), result.path(MODEL))
    images = dataset.train.images
    shown = [images, images[:, :, ::-1]] if dataset.mirrored else [images]
    forward = Forward(model)
    result.write_array("features", np.stack([forward(view)["feature"] for view in shown], axis=1))
    facts = {"parameters": config.parameters, "macs": config.macs, "accuracy": best.accuracy}
    result.write_facts(facts | {"config": cnn.to_json(config)})


def _convert(job: CnnJob, trained: Result, format_name: str, result: Result) -> None:
    """The flatbuffer, and its features of the validation split."""
    from benchmarks import cnn

    config = cnn.from_json(trained.facts["config"])
    flatbuffer = cnn.to_flatbuffer(config, load_file(trained.path(MODEL)), format_name)
    result.path(FLATBUFFER).write_bytes(flatbuffer)
    images = job.workspace.split("validation").images
    result.write_array("features", run_many(flatbuffer, images, threads=1).features)


def _start(job: CnnJob, dataset: Dataset, logits: int) -> tuple["CnnConfig", Weights]:
    """Sizes and, when it is cut from a teacher, weights to start from."""
    from benchmarks import cnn
    from edvit_tf.build.importance import proxy_images

    mean, deviation = mean_and_deviation(dataset.train.images)
    largest = cnn.CnnConfig(dataset.image, cnn.filters_of(TEACHER_FILTERS), logits, mean, deviation)
    config = largest if job.most_bytes is None else cnn.largest_within(largest, job.most_bytes)
    if job.teacher is None:
        return config, {}
    kept = job.store.get(job.teacher)
    teacher, weights = cnn.from_json(kept.facts["config"]), load_file(kept.path(MODEL))
    proxies = proxy_images(
        dataset.train.images,
        dataset.train.labels,
        job.group,
        per_class=job.settings.proxy_images,
        seed=job.settings.seed_for(job.name, "proxies"),
    )
    scores = cnn.score_filters(teacher, weights, proxies, seed=job.settings.seed_for(job.name, "importance"))
    return cnn.with_fresh_head(*cnn.cut(teacher, weights, scores, config.filters), logits)


def answer(job: CnnJob, report: Report) -> None:
    """The logits of the network `teacher` for every training picture, f32 [n, views, classes]."""
    report(0.0, "answering")

    def write(result: Result) -> None:
        from benchmarks import cnn
        from edvit_tf.build.training import Forward
        from edvit_tf.vit.model import write_weights

        assert job.teacher is not None  # noqa: S101  the caller gave it
        kept = job.store.get(job.teacher)
        model = cnn.build(cnn.from_json(kept.facts["config"]))
        write_weights(model, load_file(kept.path(MODEL)))
        images = job.workspace.split("train").images
        views = [images, images[:, :, ::-1]] if job.workspace.mirrored else [images]
        forward = Forward(model)
        result.write_array("logits", np.stack([forward(view)["logits"] for view in views], axis=1))

    (recipe,) = job.answers
    job.store.make(recipe, write)
