"""The way from a teacher to a bundle, as the paper's figure shows it (ED-ViT, arXiv 2410.11650).

    split the classes → importance → widths → surgery → retrain → sparsify → convert → fuse → bundle

What is between split and fusion happens once for each group, side by side, in `jobs.make_submodel`. This
process itself never imports TensorFlow.
"""

import importlib.metadata
import platform
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from edvit_converters.formats import find
from safetensors.numpy import save

from edvit_tf import __version__
from edvit_tf.build.data import load
from edvit_tf.build.engine import Job, run
from edvit_tf.build.grouping import rows_of_epoch
from edvit_tf.build.plan import ExportPlan, load_teacher, plan_export
from edvit_tf.build.progress import Progress
from edvit_tf.build.report import write_report
from edvit_tf.build.settings import ExportSettings
from edvit_tf.build.work import FusionJob, MadeFusion, MadeSubmodel, SubmodelJob, TeacherJob
from edvit_tf.build.workspace import Workspace
from edvit_tf.bundle.manifest import (
    Accuracies,
    Fusion,
    InputSpec,
    Manifest,
    Single,
    Submodel,
    Teacher,
    Variant,
)
from edvit_tf.bundle.vector import save_vector
from edvit_tf.bundle.writer import new_bundle, write_manifest
from edvit_tf.errors import UsageError
from edvit_tf.runtime.ensemble import accuracy, run_many
from edvit_tf.vit.checkpoint import Checkpoint

SINGLE = "single"
JOBS = "edvit_tf.build.jobs"
STAGES = {"data": 0.01, "teacher": 0.10, "sub-models": 0.80, "fusion": 0.07, "bundle": 0.02}
"""The stages of an export in their order, and about what share of its time each takes."""

_PACKAGES = (
    "tensorflow", "tf-keras", "tensorflow-model-optimization", "ai-edge-litert", "ai-edge-quantizer", "numpy",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Made:
    """All that goes into the bundle."""

    teacher: Checkpoint
    teacher_flatbuffer: bytes
    teacher_accuracy: float
    submodels: list[MadeSubmodel]
    single: MadeSubmodel | None
    fusion: MadeFusion


def export(settings: ExportSettings, progress: Progress) -> Path:
    """Split a teacher over devices and write the bundle to `settings.out`, whole or not at all.

    Returns:
        The bundle's folder.

    Raises:
        UsageError: options that do not fit each other or the data, or something stands at `out` already.
        ModelError, DataError, PlanError: the teacher, the data or the sizes are not usable.
    """
    plan = plan_export(settings)
    plan.check_memory(settings.memory_mb)
    with new_bundle(settings.out) as folder, tempfile.TemporaryDirectory(prefix="edvit-tf-") as temporary:
        seconds = _Stopwatch()
        progress.update("data", 0.0, "reading")
        teacher = load_teacher(settings.model, plan.classes)
        dataset = load(settings.data, seed=settings.seed, image=teacher.config.image)
        workspace = Workspace.create(Path(temporary), dataset)
        progress.update("data", 1.0, dataset.origin)
        seconds.lap("data")

        flatbuffer = _teach(teacher, workspace, settings, progress)
        reached = accuracy(run_many(flatbuffer, dataset.validation.images).logits, dataset.validation.labels)
        seconds.lap("teacher")

        submodels, single = _make_submodels(plan, teacher, workspace, settings, progress)
        seconds.lap("sub-models")

        fusion = _fuse(submodels, workspace, settings, progress)
        seconds.lap("fusion")

        made = _Made(teacher, flatbuffer, reached, submodels, single, fusion)
        manifest = _write(folder, plan, settings, made)
        seconds.lap("bundle")
        write_report(folder, manifest, submodels, single, seconds.seconds, dataset.origin)
        progress.update("bundle", 1.0, "written")
    return Path(settings.out)


def _teach(teacher: Checkpoint, workspace: Workspace, settings: ExportSettings, progress: Progress) -> bytes:
    """Ask the teacher once about every training picture; its answers go to the workspace."""
    # Always two shares, so that the numbers do not depend on how many workers there are.
    rows = len(workspace.split("train"))
    borders = (0, rows // 2, rows)
    jobs = [
        TeacherJob(teacher, workspace, borders[0], borders[1], convert=True),
        TeacherJob(teacher, workspace, borders[1], borders[2], convert=False),
    ]
    shares = run(
        [Job("teacher", f"{JOBS}:teach", job) for job in jobs],
        workers=settings.workers,
        stage="teacher",
        progress=progress,
    )
    workspace.write("teacher_logits", np.concatenate([share.logits for share in shares]))
    flatbuffer: bytes = shares[0].flatbuffer
    return flatbuffer


def _make_submodels(
    plan: ExportPlan, teacher: Checkpoint, workspace: Workspace, settings: ExportSettings, progress: Progress
) -> tuple[list[MadeSubmodel], MadeSubmodel | None]:
    """One job a group, and one for the single student: all classes, a sub-model's size and gradient steps."""
    jobs = [
        SubmodelJob(planned.id, planned.group, plan.widths, teacher, workspace, settings)
        for planned in plan.submodels
    ]
    if settings.baselines:
        everything = tuple(range(len(plan.classes)))
        rows = rows_of_epoch(np.asarray(workspace.split("train").labels), plan.submodels[0].group)
        jobs.append(SubmodelJob(SINGLE, everything, plan.widths, teacher, workspace, settings, rows))
    made = run(
        [Job(job.name, f"{JOBS}:make_submodel", job) for job in jobs],
        workers=settings.workers,
        stage="sub-models",
        progress=progress,
    )
    return made[: len(plan.submodels)], made[-1] if settings.baselines else None


def _fuse(
    submodels: list[MadeSubmodel], workspace: Workspace, settings: ExportSettings, progress: Progress
) -> MadeFusion:
    job = FusionJob(tuple(submodel.name for submodel in submodels), workspace, settings)
    (made,) = run([Job("fusion", f"{JOBS}:make_fusion", job)], workers=1, stage="fusion", progress=progress)
    assert isinstance(made, MadeFusion)  # noqa: S101  the engine does not know what a job returns
    return made


def _write(folder: Path, plan: ExportPlan, settings: ExportSettings, made: _Made) -> Manifest:
    """Every file of the bundle, the manifest last."""
    for name in ("submodels", "vectors", "baselines"):
        (folder / name).mkdir()
    teacher_file = "baselines/teacher.f32.tflite"
    (folder / teacher_file).write_bytes(made.teacher_flatbuffer)
    single = None
    if made.single is not None:
        single_file = f"baselines/single.{settings.format}.tflite"
        (folder / single_file).write_bytes(made.single.flatbuffer)
        config = made.single.config
        single = Single(parameters=config.parameters, macs=config.macs, file=single_file)
    (folder / "fusion.tflite").write_bytes(made.fusion.flatbuffer)
    (folder / "fusion.safetensors").write_bytes(save(made.fusion.weights))
    largest = max(submodel.config.macs for submodel in made.submodels)
    submodels = tuple(
        _write_submodel(folder, s, plan.classes, settings.format, largest) for s in made.submodels
    )
    image = made.teacher.config.image
    manifest = Manifest(
        name=settings.name or _bundle_name(plan.teacher, settings.data),
        version=settings.version,
        classes=plan.classes,
        input=InputSpec(height=image.height, width=image.width, channels=image.channels),
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
            teacher=made.teacher_accuracy,
            fused=made.fusion.accuracy,
            variants={
                part.variants[0].file: submodel.accuracy
                for part, submodel in zip(submodels, made.submodels, strict=True)
            },
            missing=made.fusion.missing,
            single=made.single.accuracy if made.single is not None else None,
        ),
        config=settings.recorded(),
        seed=settings.seed,
        made_with=_versions(),
    )
    return write_manifest(folder, manifest)


def _write_submodel(
    folder: Path, made: MadeSubmodel, classes: tuple[str, ...], format_name: str, largest_macs: int
) -> Submodel:
    file = f"submodels/{made.name}.{format_name}.tflite"
    vector = f"vectors/{made.name}.{format_name}.safetensors"
    (folder / file).write_bytes(made.flatbuffer)
    save_vector(folder / vector, made.vector)
    variant = Variant(
        file=file,
        format=format_name,
        target="any",
        runtimes=find(format_name).runtimes,
        arena_bytes=made.arena_bytes,
        partitions=made.partitions,
        operators=made.operators,
        inputs=made.inputs,
        outputs=made.outputs,
        test_vector=vector,
    )
    return Submodel(
        id=made.name,
        classes=tuple(classes[index] for index in made.group),
        parameters=made.config.parameters,
        macs=made.config.macs,
        energy_weight=made.config.macs / largest_macs,
        variants=(variant,),
    )


def _bundle_name(teacher: str, data: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{teacher}-{Path(data).name}").strip("-._")[:64]
    if not name:
        raise UsageError("the bundle needs a name of letters and digits: give one with --name")
    return name


def _versions() -> dict[str, str]:
    found = {"edvit-tf": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # not every format needs every package
    return found


class _Stopwatch:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = round(now - self._last, 2)
        self._last = now
