"""The way from a teacher to a bundle, as the paper's figure shows it (ED-ViT, arXiv 2410.11650).

    split the classes → importance → shape → surgery → common student → retrain → sparsify → convert → fuse
    → bundle

From retraining to fusion everything happens once for each group, side by side, in `submodel_job.py`; the
student that all of them start from is made there as well. What each stage depends on stands in `stages.py`.
This process itself never imports TensorFlow.
"""

import platform
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from edvit_converters.formats import find
from edvit_converters.targets import target_of
from numpy.typing import NDArray

from edvit_tf import __version__
from edvit_tf.build import cluster
from edvit_tf.build.auto import Measurers, try_formats
from edvit_tf.build.data import Dataset, load
from edvit_tf.build.engine import Job, run
from edvit_tf.build.grouping import rows_of_epoch
from edvit_tf.build.latency import Milliseconds
from edvit_tf.build.layerwise import check_budget
from edvit_tf.build.plan import ExportPlan, find_teacher, plan_export
from edvit_tf.build.progress import Progress
from edvit_tf.build.report import Making, write_report
from edvit_tf.build.settings import AUTO, ExportSettings
from edvit_tf.build.shapes import FINAL_EPOCHS, FINALISTS, TRIAL_EPOCHS, TriedShape, by_accuracy, shapes
from edvit_tf.build.split import Groups, by_count, by_likeness, likeness
from edvit_tf.build.stages import (
    SubmodelRecipes,
    TeacherRecipes,
    of_auto,
    of_fused,
    of_fusion,
    of_latency,
    of_submodel,
    of_teacher,
    versions,
)
from edvit_tf.build.store import Recipe, Result, Store, open_store
from edvit_tf.build.widths import Widths
from edvit_tf.build.work import (
    FLATBUFFER,
    MODEL,
    FusedJob,
    FusionJob,
    ImportanceJob,
    LatencyJob,
    MadeFusion,
    MadeSubmodel,
    MadeVariant,
    SubmodelJob,
    TeacherJob,
    read_answers,
    read_fusion,
    read_submodel,
    refused_formats,
    without_formats,
)
from edvit_tf.build.workspace import Workspace
from edvit_tf.bundle.manifest import (
    Accuracies,
    Fusion,
    InputSpec,
    Manifest,
    Single,
    SoundSpec,
    Submodel,
    Teacher,
    Variant,
)
from edvit_tf.bundle.reader import open_bundle
from edvit_tf.bundle.sound import sound_of
from edvit_tf.bundle.tried import Measured
from edvit_tf.bundle.writer import check_free, new_bundle, write_manifest
from edvit_tf.errors import TrainingError, UsageError
from edvit_tf.runtime.fusion import softmax
from edvit_tf.vit.checkpoint import Checkpoint
from edvit_tf.vit.checkpoint import save as save_checkpoint

SINGLE = "single"
TEACHER_JOBS, IMPORTANCE_JOB, SUBMODEL_JOB, FUSION_JOB = (
    f"edvit_tf.build.{module}" for module in ("teacher_jobs", "importance_job", "submodel_job", "fusion_job")
)
STAGES = {
    "data": 0.01, "teacher": 0.06, "importance": 0.03, "shapes": 0.14, "best shapes": 0.12,
    "common student": 0.2, "sub-models": 0.35, "fusion": 0.07, "bundle": 0.02,
}  # fmt: skip
"""The stages of an export in their order, and about what share of its time each takes."""


@dataclass(frozen=True, slots=True)
class _Made:
    """All that goes into the bundle."""

    teacher: Checkpoint
    flatbuffer: Result
    submodels: list[MadeSubmodel]
    single: MadeSubmodel | None
    fusion: MadeFusion
    sound: SoundSpec | None
    tried: tuple[dict[str, Any], ...] = ()

    def only(self, formats: Sequence[str]) -> "_Made":
        """The same with sub-models in these formats, in their order."""
        single = None if self.single is None else self.single.only(formats)
        return replace(self, submodels=[part.only(formats) for part in self.submodels], single=single)


def export(settings: ExportSettings, progress: Progress, measurers: Measurers | None = None) -> Path:
    """Split a teacher over devices and write the bundle to `settings.out`, whole or not at all.

    Every stage's result is kept in `settings.cache_folder`: an export that was ended, by whatever, goes on
    from there when it is asked for again, and ends with the same bundle.

    Args:
        settings: all options.
        progress: told how far it is.
        measurers: the devices that measure what `--format auto` tries, with `--on-device`.

    Returns:
        The bundle's folder.

    Raises:
        UsageError: options that do not fit each other or the data, or something stands at `out` already.
        LinkError: a device was lost while it measured.
        ModelError, DataError, PlanError: the teacher, the data or the sizes are not usable.
        TrainingError: a training went wrong, or the teacher is no better than chance.
    """
    if settings.on_device and measurers is None:
        raise UsageError("--on-device measures on the devices of a fleet, and none was given")
    check_free(settings.out)
    plan = plan_export(settings)
    plan.check_memory(settings.memory_mb)
    seconds = _Stopwatch()
    progress.update("data", 0.0, "reading")
    teacher = find_teacher(settings, plan.classes)
    dataset = load(
        settings.data, seed=settings.seed, image=teacher.config.image, sound=sound_of(teacher.details)
    )
    with open_store(settings.cache_folder) as store:
        work = _Export(settings, store, progress, *keep_inputs(settings, store, dataset, teacher))
        progress.update("data", 1.0, dataset.summary())
        seconds.lap("data")

        flatbuffer = _teach(work)
        if not settings.random_weights:
            counts = dataset.validation.counts(len(plan.classes))
            _check_teacher(settings.model, flatbuffer.facts["accuracy"], counts)
        plan = plan.with_groups(_groups(work, plan))
        seconds.lap("teacher")

        _judge(work)
        seconds.lap("importance")

        latency = _measure_latency(work, plan)
        tried_shapes = _try_shapes(work, plan)
        progress.update("shapes", 1.0, "done")
        seconds.lap("shapes")

        if tried_shapes:
            tried_shapes = _try_best(work, plan, tried_shapes)
            plan = plan.with_widths(tried_shapes[0].widths)
        progress.update("best shapes", 1.0, "done")
        seconds.lap("best shapes")

        common = _train_common(work, plan, latency)
        progress.update("common student", 1.0, "done")
        seconds.lap("common student")

        submodels = _plan_submodels(work, plan, latency, common)
        _make_submodels(work, submodels)
        refused = refused_formats(submodels)
        submodels = [without_formats(job, refused) for job in submodels]
        recipes = {job.name: job.recipes for job in submodels if job.name != SINGLE}
        seconds.lap("sub-models")

        fusion = _fuse(work, recipes)
        seconds.lap("fusion")

        parts = [read_submodel(job) for job in submodels]
        single = parts.pop() if settings.baselines else None
        made = _Made(teacher, flatbuffer, parts, single, fusion, dataset.sound)
        if settings.format == AUTO:
            made = _keep_fastest(work, plan, made, _fused_recipes(work, recipes), refused, measurers)
        with new_bundle(settings.out) as folder:
            manifest = _write(folder, plan, settings, made)
            seconds.lap("bundle")
            write_report(
                folder,
                manifest,
                made.submodels,
                made.single,
                fusion,
                Making(
                    tried_shapes,
                    None if common is None else store.get(common.retrained).facts["accuracy"],
                    seconds.seconds,
                ),
                dataset,
            )
    progress.update("bundle", 1.0, "written")
    return Path(settings.out)


@dataclass(frozen=True, slots=True)
class _Export:
    """What every step of one export needs."""

    settings: ExportSettings
    store: Store
    progress: Progress
    recipes: TeacherRecipes
    workspace: Workspace

    def run(self, jobs: Sequence[Job], stage: str, *, alike: bool = False) -> None:
        """Run jobs in processes; they leave their results in the store. See `engine.run` for `alike`."""
        workers, progress = self.settings.workers, self.progress
        if self.settings.engine == "ray":
            cluster.run(jobs, workers=workers, stage=stage, progress=progress, shared=self.store.folder)
        else:
            run(jobs, workers=workers, stage=stage, progress=progress, alike=alike)


def keep_inputs(
    settings: ExportSettings, store: Store, dataset: Dataset, teacher: Checkpoint
) -> tuple[TeacherRecipes, Workspace]:
    """Put data and teacher where every process finds them."""
    recipes = of_teacher(settings, dataset, teacher)
    kept = store.make(recipes.data, lambda result: Workspace.create(result.folder, dataset))
    store.make(recipes.teacher, lambda result: save_checkpoint(result.path(MODEL), teacher))
    workspace = Workspace(kept.folder, dataset.name, dataset.classes, dataset.origin, dataset.mirrored)
    return recipes, workspace


def _teach(work: _Export) -> Result:
    """Ask the teacher once about every training picture, and convert it."""
    store, recipes, workspace = work.store, work.recipes, work.workspace
    jobs = [
        Job("teacher", f"{TEACHER_JOBS}:answer", TeacherJob(recipe, recipes, store, workspace, rows))
        for rows, recipe in zip(recipes.rows, recipes.answers, strict=True)
        if recipe not in store
    ]
    if recipes.flatbuffer not in store:
        job = TeacherJob(recipes.flatbuffer, recipes, store, workspace)
        jobs.append(Job("teacher", f"{TEACHER_JOBS}:flatbuffer", job))
    work.run(jobs, "teacher")
    work.progress.update("teacher", 1.0, "done")
    return store.get(recipes.flatbuffer)


def _check_teacher(name: str, reached: float, counts: NDArray[np.int64]) -> None:
    """Refuse to teach what nobody knows.

    One answer for every picture is right for the largest class; up to two standard deviations more is luck.

    Raises:
        TrainingError: the teacher is not clearly better on validation.
    """
    pictures = int(counts.sum())
    chance = int(counts.max()) / pictures
    least = chance + 2 * (chance * (1 - chance) / pictures) ** 0.5
    if reached <= least:
        raise TrainingError(
            f"the teacher {name} is right on {reached:.1%} of {pictures} validation pictures, one answer for "
            f"all of them on {chance:.1%}: it has nothing to teach; train it longer, or check that these are "
            "pictures of the classes it was trained on"
        )


def _groups(work: _Export, plan: ExportPlan) -> Groups:
    """The classes of each sub-model, now that the pictures and the teacher's answers are there."""
    settings, split = work.settings, work.workspace.split("train")
    if settings.groups == "count":
        return by_count(np.bincount(split.labels, minlength=len(plan.classes)).tolist(), settings.devices)
    if settings.groups not in ("alike", "apart"):
        return tuple(submodel.group for submodel in plan.submodels)
    answers = softmax(read_answers(work.store, work.recipes)[:, 0])
    return by_likeness(
        likeness(answers, np.asarray(split.labels)),
        settings.devices,
        together=settings.groups == "alike",
        seed=settings.seed_for("split"),
    )


def _judge(work: _Export) -> None:
    """Judge the teacher's units by the pictures of each class, once for all groups."""
    settings, store, recipes = work.settings, work.store, work.recipes
    missing = tuple(label for label, recipe in enumerate(recipes.importances) if recipe not in store)
    shares = [missing[worker :: settings.workers] for worker in range(settings.workers)]
    work.run(
        [
            Job(
                "units",
                f"{IMPORTANCE_JOB}:judge",
                ImportanceJob(share, recipes, store, work.workspace, settings),
            )
            for share in shares
            if share
        ],
        "importance",
    )
    work.progress.update("importance", 1.0, "done")


def _measure_latency(work: _Export, plan: ExportPlan) -> Recipe | None:
    """What sizes take on this machine, if widths are chosen by it."""
    settings = work.settings
    if settings.widths != "latency":
        return None
    recipe = of_latency(settings, plan.config, plan.widths)
    if recipe not in work.store:
        job = LatencyJob(recipe, plan.config, plan.widths, settings.formats[0], work.store, work.workspace)
        work.run([Job("latency", "edvit_tf.build.latency_job:measure", job)], "shapes")
    if settings.budget is not None:
        found = Milliseconds(**work.store.get(recipe).facts["coefficients"])
        check_budget(plan.config, found, settings.budget)
    return recipe


def _try_shapes(work: _Export, plan: ExportPlan) -> list[TriedShape]:
    """If shapes are tried: how right a student of all classes is in each after a moment, the best first.

    A wide stream takes memory while it computes: what a device has no room for is not tried.
    """
    if not work.settings.tries_shapes:
        return []
    room = work.settings.memory_mb
    fitting = [w for w in shapes(plan.config, plan.widths) if plan.with_widths(w).fits(room)]
    if len(fitting) < 2:
        return []
    return by_accuracy(_trained_in(work, plan, fitting, TRIAL_EPOCHS, "shapes"))


def _try_best(work: _Export, plan: ExportPlan, tried: list[TriedShape]) -> list[TriedShape]:
    """The same with the best of them trained for longer, which are now the first."""
    finalists = [shape.widths for shape in tried[:FINALISTS]]
    longer = _trained_in(work, plan, finalists, FINAL_EPOCHS, "best shapes")
    return by_accuracy([*longer, *tried[FINALISTS:]])


def _trained_in(
    work: _Export, plan: ExportPlan, tried: Sequence[Widths], epochs: int, stage: str
) -> list[TriedShape]:
    """Train a student of all classes in each shape, an epoch having a sub-model's pictures."""
    rows = rows_of_epoch(_labels(work), plan.submodels[0].group, work.settings.others)
    jobs = [_student(work, plan.with_widths(widths), None, epochs, rows) for widths in tried]
    work.run(
        [
            Job(f"shape {number} of {len(jobs)}", f"{SUBMODEL_JOB}:retrain_submodel", job)
            for number, job in enumerate(jobs, start=1)
            if job.recipes.retrained not in work.store
        ],
        stage,
    )
    return [
        TriedShape(job.widths, epochs, work.store.get(job.recipes.retrained).facts["accuracy"])
        for job in jobs
    ]


def _train_common(work: _Export, plan: ExportPlan, latency: Recipe | None) -> SubmodelRecipes | None:
    """Train the student of all classes that all sub-models start from, if there is to be one."""
    epochs = work.settings.common_epochs
    if not epochs:
        return None
    job = _student(work, plan, latency, epochs, len(_labels(work)), cool_down=work.settings.common_cooled)
    recipes = job.recipes
    if recipes.retrained not in work.store:
        work.run([Job("all classes", f"{SUBMODEL_JOB}:retrain_submodel", job)], "common student")
    return recipes


def _plan_submodels(
    work: _Export, plan: ExportPlan, latency: Recipe | None, common: SubmodelRecipes | None
) -> list[SubmodelJob]:
    """One job a group, and a last one for the single student, which sees as many pictures as a sub-model."""
    settings = work.settings
    jobs = [
        _submodel(work, part.id, part.group, plan.widths, None, latency, common) for part in plan.submodels
    ]
    if settings.baselines:
        labels = _labels(work)
        epochs = settings.common_epochs + settings.epochs
        seen = settings.common_epochs * len(labels)
        seen += settings.epochs * rows_of_epoch(labels, plan.submodels[0].group, settings.others)
        jobs.append(_student(work, plan, latency, epochs, -(-seen // epochs), settings.sparsity))
    return jobs


def _labels(work: _Export) -> NDArray[np.int64]:
    return np.asarray(work.workspace.split("train").labels)


def _student(
    work: _Export,
    plan: ExportPlan,
    latency: Recipe | None,
    epochs: int,
    rows: int,
    sparsity: float | str = 0.0,
    *,
    cool_down: bool = True,
) -> SubmodelJob:
    """The job of a student of all classes and a sub-model's size, with epochs of its own."""
    settings = replace(work.settings, epochs=epochs, sparsity=sparsity)
    everything = tuple(range(len(plan.classes)))
    return _submodel(
        replace(work, settings=settings),
        SINGLE,
        everything,
        plan.widths,
        rows,
        latency,
        None,
        cool_down=cool_down,
    )


def _submodel(
    work: _Export,
    name: str,
    group: tuple[int, ...],
    widths: Widths,
    rows: int | None,
    latency: Recipe | None,
    common: SubmodelRecipes | None,
    *,
    cool_down: bool = True,
) -> SubmodelJob:
    """What a process is asked for of one sub-model, or of a student with `rows` pictures an epoch."""
    settings, taught = work.settings, work.recipes
    recipes = of_submodel(settings, taught, name, group, widths, rows, latency, common, cool_down=cool_down)
    return SubmodelJob(
        name, group, widths, recipes, taught, work.store, work.workspace, settings, rows, cool_down
    )


def _make_submodels(work: _Export, submodels: Sequence[SubmodelJob]) -> None:
    """Retrain each sub-model on its own, and convert it."""
    work.run(
        [
            Job(job.name, f"{SUBMODEL_JOB}:make_submodel", job)
            for job in submodels
            if any(recipe not in work.store for recipe in job.recipes.last)
        ],
        "sub-models",
        alike=True,
    )
    work.progress.update("sub-models", 1.0, "done")


def _fuse(work: _Export, submodels: dict[str, SubmodelRecipes]) -> MadeFusion:
    settings, store, taught, workspace = work.settings, work.store, work.recipes, work.workspace
    recipe = of_fusion(settings, taught, submodels)
    if recipe not in store:
        job = FusionJob(recipe, submodels, taught, store, workspace, settings)
        work.run([Job("fusion", f"{FUSION_JOB}:make_fusion", job)], "fusion")
    fused = _fused_recipes(work, submodels)
    work.run(
        [
            Job(
                f"fusion in {name}",
                f"{FUSION_JOB}:measure_fused",
                FusedJob(
                    measured,
                    recipe,
                    {submodel: made.variants[name] for submodel, made in submodels.items()},
                    store,
                    workspace,
                ),
            )
            for name, measured in fused.items()
            if measured not in store
        ],
        "fusion",
    )
    work.progress.update("fusion", 1.0, "done")
    return read_fusion(store, recipe, fused)


def _keep_fastest(
    work: _Export,
    plan: ExportPlan,
    made: _Made,
    fused: dict[str, Recipe],
    refused: dict[str, str],
    measurers: Measurers | None,
) -> _Made:
    """What `--format auto` keeps of all that was made, the format to prefer first."""
    settings = work.settings

    def on_devices(devices: Measurers) -> Mapping[str, tuple[Measured, ...]]:
        work.progress.update("bundle", 0.0, "measuring on the devices")
        with tempfile.TemporaryDirectory() as folder:
            with new_bundle(Path(folder) / "candidates") as candidates:
                _write(candidates, plan, settings, made)
            largest = max(made.submodels, key=lambda submodel: submodel.config.macs)
            return devices.measure(open_bundle(Path(folder) / "candidates"), largest.name)

    result = work.store.make(
        of_auto(settings, fused, () if measurers is None else measurers.keys),
        lambda result: try_formats(
            settings,
            made.submodels,
            made.fusion.fused,
            result,
            None if measurers is None else partial(on_devices, measurers),
        ),
    )
    tried = [*result.facts["tried"], *({"format": name, "reason": why} for name, why in refused.items())]
    kept = [row["format"] for row in tried if not row["reason"]]
    return replace(made.only(kept), tried=tuple(tried))


def _fused_recipes(work: _Export, submodels: dict[str, SubmodelRecipes]) -> dict[str, Recipe]:
    recipe = of_fusion(work.settings, work.recipes, submodels)
    formats = next(iter(submodels.values())).variants
    return {name: of_fused(work.settings, work.recipes, recipe, submodels, name) for name in formats}


def _write(folder: Path, plan: ExportPlan, settings: ExportSettings, made: _Made) -> Manifest:
    """Every file of the bundle, the manifest last."""
    for name in ("submodels", "vectors", "baselines"):
        (folder / name).mkdir()
    teacher_file = "baselines/teacher.f32.tflite"
    shutil.copyfile(made.flatbuffer.path(FLATBUFFER), folder / teacher_file)
    first = next(iter(made.submodels[0].variants))
    single = None
    if made.single is not None:
        single_file = f"baselines/single.{first}.tflite"
        shutil.copyfile(made.single.variants[first].flatbuffer, folder / single_file)
        config = made.single.config
        single = Single(parameters=config.parameters, macs=config.macs, file=single_file)
    shutil.copyfile(made.fusion.flatbuffer, folder / "fusion.tflite")
    shutil.copyfile(made.fusion.weights, folder / "fusion.safetensors")
    largest = max(submodel.config.macs for submodel in made.submodels)
    submodels = tuple(
        _write_submodel(folder, s, plan.classes, largest, settings.target) for s in made.submodels
    )
    image = made.teacher.config.image
    manifest = Manifest(
        name=settings.name or _bundle_name(plan.teacher, settings.data),
        version=settings.version,
        classes=plan.classes,
        input=InputSpec(height=image.height, width=image.width, channels=image.channels, sound=made.sound),
        submodels=submodels,
        fusion=Fusion(
            file="fusion.tflite",
            order=tuple(submodel.id for submodel in submodels),
            calibration=made.fusion.calibration,
        ),
        teacher=Teacher(
            name=plan.teacher,
            parameters=made.teacher.config.parameters,
            macs=made.teacher.config.macs,
            file=teacher_file,
        ),
        single=single,
        accuracies=Accuracies(
            teacher=made.flatbuffer.facts["accuracy"],
            fused=made.fusion.fused[first].accuracy,
            extra={"formats": {name: fused.accuracy for name, fused in made.fusion.fused.items()}},
            variants={
                variant.file: submodel.variants[variant.format].accuracy
                for part, submodel in zip(submodels, made.submodels, strict=True)
                for variant in part.variants
            },
            missing=made.fusion.fused[first].missing,
            single=made.single.variants[first].accuracy if made.single is not None else None,
        ),
        extra={"tried": list(made.tried)} if made.tried else {},
        config=settings.recorded(),
        seed=settings.seed,
        made_with={"edvit-tf": __version__, "python": platform.python_version(), **versions()},
    )
    return write_manifest(folder, manifest)


def _write_submodel(
    folder: Path, made: MadeSubmodel, classes: tuple[str, ...], largest_macs: int, target: str
) -> Submodel:
    return Submodel(
        id=made.name,
        classes=tuple(classes[index] for index in made.group),
        parameters=made.config.parameters,
        macs=made.config.macs,
        energy_weight=made.config.macs / largest_macs,
        variants=tuple(
            _write_variant(folder, f"{made.name}.{name}", name, variant, target)
            for name, variant in made.variants.items()
        ),
    )


def _write_variant(folder: Path, stem: str, format_name: str, made: MadeVariant, target: str) -> Variant:
    file, vector = f"submodels/{stem}.tflite", f"vectors/{stem}.safetensors"
    shutil.copyfile(made.flatbuffer, folder / file)
    shutil.copyfile(made.vector, folder / vector)
    return Variant(
        file=file,
        format=format_name,
        target=target_of(format_name, target),
        runtimes=find(format_name).runtimes,
        arena_bytes=made.arena_bytes,
        partitions=made.partitions,
        operators=made.operators,
        inputs=made.inputs,
        outputs=made.outputs,
        test_vector=vector,
    )


def _bundle_name(teacher: str, data: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{teacher}-{Path(data).name}").strip("-._")[:64]
    if not name:
        raise UsageError("the bundle needs a name of letters and digits: give one with --name")
    return name


class _Stopwatch:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = round(now - self._last, 2)
        self._last = now
