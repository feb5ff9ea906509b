"""The last work of an export: train the fusion, and measure it over every format."""

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from edvit_tf.build.engine import Report
from edvit_tf.build.resume import Snapshots
from edvit_tf.build.settings import ExportSettings
from edvit_tf.build.stages import FUSION, SubmodelRecipes
from edvit_tf.build.store import Result, Store
from edvit_tf.build.work import FLATBUFFER, WEIGHTS, FusedJob, FusionJob, lessons
from edvit_tf.runtime.ensemble import accuracy
from edvit_tf.runtime.interpreter import Flatbuffer

_RATE = 2e-3


def make_fusion(job: FusionJob, report: Report) -> None:
    """Train, calibrate and convert the tower MLP."""
    report(0.0, "starting")
    job.store.make(job.recipe, lambda result: _train(job, FUSION.settings_of(job.settings), result, report))


def _train(job: FusionJob, settings: ExportSettings, result: Result, report: Report) -> None:
    from edvit_converters.tflite import convert_fusion

    from edvit_tf.build.fusion import FusionData, FusionSettings, calibrate, train_fusion
    from edvit_tf.build.retrain import mixed_targets
    from edvit_tf.build.training import Schedule
    from edvit_tf.vit.model import read_weights

    store, workspace, made = job.store, job.workspace, list(job.submodels.values())
    features = [_features_of(store, recipes) for recipes in made]
    first = [next(iter(recipes.variants.values())) for recipes in made]
    labels = np.asarray(workspace.split("validation").labels)
    classes = np.asarray(workspace.split("train").labels)
    taught = lessons(store, job.taught, workspace, balance=settings.balance)
    data = FusionData(
        features=np.concatenate(features, axis=-1),
        targets=mixed_targets(taught, classes, len(workspace.classes), settings.distillation),
        classes=classes,
        validation=np.concatenate([store.get(recipe).array("features") for recipe in first], axis=-1),
        labels=labels,
        sizes=tuple(part.shape[-1] for part in features),
    )
    model = train_fusion(
        data,
        FusionSettings(
            Schedule(settings.fusion_epochs, settings.batch, _RATE), settings.left_out, settings.balance
        ),
        seed=settings.seed_for("fusion"),
        report=report,
        snapshots=Snapshots(store.unfinished(job.recipe)),
    )
    result.path(FLATBUFFER).write_bytes(convert_fusion(model))
    result.path(WEIGHTS).write_bytes(save(read_weights(model)))
    calibration = calibrate(model, data.validation, labels, data.sizes)
    result.write_facts(
        {"calibration": [{"missing": c.missing, "temperature": c.temperature} for c in calibration]}
    )


def _features_of(store: Store, recipes: SubmodelRecipes) -> NDArray[np.float32]:
    """f32 [n, views, kinds, width]: the sub-model's and, where there is one, its student's."""
    kinds = [recipe for recipe in (recipes.features, recipes.coral) if recipe is not None]
    return np.stack([store.get(recipe).array("features") for recipe in kinds], axis=2)


def measure_fused(job: FusedJob, report: Report) -> None:
    """How right the fusion's flatbuffer is on what the sub-models' flatbuffers said of validation."""
    report(0.0, "measuring")
    job.store.make(job.recipe, lambda result: _measure(job, result))


def _measure(job: FusedJob, result: Result) -> None:
    labels = np.asarray(job.workspace.split("validation").labels)
    features = {name: job.store.get(recipe).array("features") for name, recipe in job.variants.items()}
    flatbuffer = Flatbuffer(job.store.get(job.fusion).path(FLATBUFFER))

    def reached(absent: str | None) -> float:
        present = np.array([[name != absent for name in features]], np.float32)
        rows = np.concatenate([f * np.float32(name != absent) for name, f in features.items()], axis=-1)
        logits: list[NDArray[np.float32]] = [
            flatbuffer.call({"features": row[np.newaxis], "present": present})["logits"][0] for row in rows
        ]
        return accuracy(np.stack(logits), labels)

    missing = {name: reached(name) for name in features} if len(features) > 1 else {}
    result.write_facts({"accuracy": reached(None), "missing": missing})
