"""The teacher: the whole Vision Transformer, trained on labels, and what it says of every picture."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.data import Dataset, mean_and_deviation
from edvit_tf.build.progress import Progress
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
) -> Checkpoint:
    """Train a model from scratch; the epoch that is best on the validation split is returned.

    Args:
        config: the sizes; number of classes and normalisation are taken from the data.
        dataset: its training and validation splits, with pictures of the config's size.
        settings: seed and schedule.
        progress: told after every epoch.
        keep: given every checkpoint that is the best so far, as soon as there is one.

    Raises:
        UsageError: the pictures are not of the size the config takes.
    """
    if dataset.image != config.image:
        raise UsageError(f"the model takes {config.image}, the pictures are {dataset.image}")
    started = time.monotonic()
    mean, deviation = mean_and_deviation(dataset.train.images)
    config = replace(config.with_classes(len(dataset.classes)), mean=mean, deviation=deviation)
    keras.utils.set_random_seed(settings.seed)
    model = build(config)
    forward = Forward(model)
    targets = one_hot(dataset.train.labels, config.classes, LABEL_SMOOTHING)[:, np.newaxis]
    examples = Examples(dataset.train.images, np.repeat(targets, 2 if dataset.mirrored else 1, axis=1))
    epochs = settings.schedule.epochs
    best: Checkpoint | None = None
    best_accuracy = -1.0

    def after_epoch(epoch: int) -> None:
        nonlocal best, best_accuracy
        accuracy = forward.accuracy(dataset.validation.images, dataset.validation.labels)
        if accuracy > best_accuracy:
            best_accuracy = accuracy
            details: dict[str, object] = {
                "data": dataset.name,
                "seed": settings.seed,
                "epochs": epochs,
                "best_epoch": epoch,
                "validation_accuracy": accuracy,
                "seconds": round(time.monotonic() - started),
            }
            if dataset.sound is not None:
                details["sound"] = asdict(dataset.sound)
            best = Checkpoint(config, read_weights(model), dataset.classes, details)
            if keep is not None:
                keep(best)
        progress.update("train", epoch / epochs, f"epoch {epoch} of {epochs}, validation {accuracy:.2%}")

    size = settings.schedule.batch
    fit(
        model,
        examples.batches(size),
        steps_of(len(examples), size),
        settings.schedule,
        seed=settings.seed,
        after_epoch=after_epoch,
    )
    assert best is not None  # noqa: S101  a schedule has at least one epoch
    return best


def teacher_logits(teacher: Checkpoint, images: NDArray[np.uint8], *, mirrored: bool) -> NDArray[np.float32]:
    """What the teacher says of each picture and, if `mirrored`, its mirror image: f32 [n, views, classes].

    Computed once: training on these needs no pass of the teacher.
    """
    forward = Forward(from_checkpoint(teacher))
    views = [images, images[:, :, ::-1]] if mirrored else [images]
    return np.stack([forward(view)["logits"] for view in views], axis=1)
