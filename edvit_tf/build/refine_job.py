"""The work of an export that all sub-models meet in: they are refined through a fusion."""

from edvit_tf.build.engine import Report
from edvit_tf.build.refine import refine, refine_data
from edvit_tf.build.resume import Snapshots
from edvit_tf.build.settings import ExportSettings
from edvit_tf.build.stages import REFINE
from edvit_tf.build.store import Result
from edvit_tf.build.training import Schedule
from edvit_tf.build.work import RefineJob, lessons, read_checkpoint, refined_file
from edvit_tf.vit.checkpoint import save

_RATE = 0.3  # of the rate of retraining: the stage starts from trained models


def refine_submodels(job: RefineJob, report: Report) -> None:
    """Train the retrained sub-models together; one result holds them all."""
    report(0.0, "starting")
    job.store.make(job.recipe, lambda result: _refine(job, REFINE.settings_of(job.settings), result, report))


def _refine(job: RefineJob, settings: ExportSettings, result: Result, report: Report) -> None:
    store, workspace = job.store, job.workspace
    data = refine_data(
        workspace.dataset(),
        lessons(store, job.taught, workspace, balance=settings.balance),
        [submodel.group for submodel in job.submodels],
        distillation=settings.distillation,
        balance=settings.balance,
        shift=settings.shift,
    )
    refined, reached = refine(
        [read_checkpoint(store.get(submodel.recipes.alone.trained)) for submodel in job.submodels],
        data,
        Schedule(settings.refine_epochs, settings.batch, settings.rate * _RATE),
        left_out=settings.left_out,
        keep_zeros=job.submodels[0].recipes.alone.sparse is not None,
        seed=settings.seed_for("refine"),
        report=report,
        snapshots=Snapshots(store.unfinished(job.recipe)),
    )
    for submodel, checkpoint in zip(job.submodels, refined, strict=True):
        save(result.path(refined_file(submodel.name)), checkpoint)
    result.write_facts({"accuracy": reached})
