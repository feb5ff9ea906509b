"""The teacher: the whole Vision Transformer, trained on labels, and what it says of every picture."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.data import Dataset, mean_and_deviation
from edvit_tf.build.progress import Progress
from edvit_tf.build.resume import Best, Snapshots
from edvit_tf.build.training import Examples, Forward, Schedule, fit, one_hot, steps_of
from edvit_tf.errors import UsageError
from edvit_tf.vit.checkpoint import Checkpoint
from edvit_tf.vit.config import ViTConfig
from edvit_tf.vit.keras import keras
from edvit_tf.vit.model import build, from_checkpoint, read_weights

LABEL_SMOOTHING = 0.1
SCHEDULE = Schedule(epochs=40, batch=256, rate=1.5e-3)


@dataclass(frozen=True, slots=True)
class TeacherSettings:
    """What a training run of the teacher is made from; `seed` decides every random choice."""

    seed: int
    schedule: Schedule = SCHEDULE


def train_teacher(
    config: ViTConfig,
    dataset: Dataset,
    settings: TeacherSettings,
    progress: Progress,
    keep: Callable[[Checkpoint], None] | None = None,
    state: Path | None = None,
) -> Checkpoint:
    """Train a model from scratch; the epoch that is best on the validation split is returned.

    Args:
        config: the sizes; number of classes and normalisation are taken from the data.
        dataset: its training and validation splits, with pictures of the config's size.
        settings: seed and schedule.
        progress: told after every epoch.
        keep: given every checkpoint that is the best so far, as soon as there is one.
        state: file for the state of a training that is not over: the same training goes on from there.

    Raises:
        UsageError: the pictures are not of the size the config takes.
    """
    if dataset.image != config.image:
        raise UsageError(f"the model takes {config.image}, the pictures are {dataset.image}")
    mean, deviation = mean_and_deviation(dataset.train.images)
    config = replace(config.with_classes(len(dataset.classes)), mean=mean, deviation=deviation)
    keras.utils.set_random_seed(settings.seed)
    model = build(config)
    forward = Forward(model)
    targets = one_hot(dataset.train.labels, config.classes, LABEL_SMOOTHING)[:, np.newaxis]
    examples = Examples(dataset.train.images, np.repeat(targets, 2 if dataset.mirrored else 1, axis=1))
    epochs = settings.schedule.epochs
    best = Best(read_weights(model))

    def checkpoint() -> Checkpoint:
        details: dict[str, object] = {
            "data": dataset.name,
            "seed": settings.seed,
            "epochs": epochs,
            "validation_accuracy": best.accuracy,
        }
        if dataset.sound is not None:
            details["sound"] = asdict(dataset.sound)
        return Checkpoint(config, dict(best.weights), dataset.classes, details)

    def after_epoch(epoch: int) -> None:
        reached, before = (
            forward.accuracy(dataset.validation.images, dataset.validation.labels),
            best.accuracy,
        )
        best.offer(reached, lambda: read_weights(model))
        if keep is not None and best.accuracy > before:
            keep(checkpoint())
        progress.update("train", epoch / epochs, f"epoch {epoch} of {epochs}, validation {reached:.2%}")

    size = settings.schedule.batch
    fit(
        model,
        examples.batches(size),
        steps_of(len(examples), size),
        settings.schedule,
        seed=settings.seed,
        after_epoch=after_epoch,
        best=best,
        snapshots=Snapshots(state, _made_from(config, dataset, settings)) if state is not None else None,
    )
    if state is not None:
        state.unlink(missing_ok=True)
    return checkpoint()


def _made_from(config: ViTConfig, dataset: Dataset, settings: TeacherSettings) -> str:
    """All that decides a training, in words: mean and deviation in the config stand for the pictures."""
    about = {"config": config.to_json(), "settings": asdict(settings), "pictures": dataset.counts.tolist()}
    return json.dumps(about, sort_keys=True)


def teacher_logits(teacher: Checkpoint, images: NDArray[np.uint8], *, mirrored: bool) -> NDArray[np.float32]:
    """What the teacher says of each picture and, if `mirrored`, its mirror image: f32 [n, views, classes].

    Computed once: training on these needs no pass of the teacher.
    """
    forward = Forward(from_checkpoint(teacher))
    views = [images, images[:, :, ::-1]] if mirrored else [images]
    return np.stack([forward(view)["logits"] for view in views], axis=1)
