"""Retrain a cut sub-model on its group: the teacher taught, labels checked, one extra class for all the rest.

Out-of-group images are one extra class, "other", its logit the last; every epoch draws about as many of them
as one class has (EC-SNN; ED-ViT, arXiv 2410.11650). The loss is cross-entropy with the label plus
KL(teacher ‖ student) on the teacher's logits regrouped to the group's classes and "other" (UP-ViTs, arXiv
2111.15127).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.data import Dataset
from edvit_tf.build.training import Choose, Examples, Forward, Schedule, fit, one_hot, steps_of
from edvit_tf.runtime.fusion import softmax
from edvit_tf.vit.checkpoint import Checkpoint, Weights
from edvit_tf.vit.keras import keras
from edvit_tf.vit.model import from_checkpoint, read_weights

OTHER = "other"


@dataclass(frozen=True, slots=True)
class RetrainSettings:
    """How a sub-model is retrained.

    Attributes:
        schedule: epochs, learning rate and so on.
        distillation: share of the teacher in the targets, 0 to 1; the label has the rest.
    """

    schedule: Schedule
    distillation: float = 0.5


@dataclass(frozen=True, slots=True)
class GroupData:
    """A data set as one group sees it.

    Attributes:
        examples: training pictures with targets over the group's classes and "other".
        choose: the rows of an epoch: the whole group and about one class's worth of the others.
        rows: how many that are.
        images, labels: what validation is measured on, chosen like an epoch, once.
    """

    examples: Examples
    choose: Choose
    rows: int
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def logits_of_group(classes: int, group: tuple[int, ...]) -> int:
    """Logits of a sub-model: one for each class of its group and one for "other", if there are others."""
    return len(group) + (len(group) < classes)


def relabel(labels: NDArray[np.int64], group: tuple[int, ...]) -> NDArray[np.int64]:
    """Labels int64 [n] of the data set to positions in the group; `len(group)` stands for "other"."""
    position = np.full(max(int(labels.max()), *group) + 1, len(group))
    position[list(group)] = np.arange(len(group))
    return position[labels]


def regroup(logits: NDArray[np.float32], group: tuple[int, ...]) -> NDArray[np.float32]:
    """Logits f32 [..., classes] to [..., group (+ other)]: "other" has the others' probabilities added up."""
    others = np.setdiff1d(np.arange(logits.shape[-1]), group)
    own = logits[..., list(group)]
    if not len(others):
        return own
    rest = np.logaddexp.reduce(logits[..., others], axis=-1, keepdims=True)
    return np.concatenate([own, rest], axis=-1)


def group_data(
    dataset: Dataset,
    teacher_logits: NDArray[np.float32],
    group: tuple[int, ...],
    *,
    distillation: float,
    seed: int,
    rows: int | None = None,
) -> GroupData:
    """What one sub-model learns from and is measured on.

    Args:
        dataset: the splits, labelled with all classes.
        teacher_logits: f32 [n, views, classes] for the training split, as `teacher_logits` gives them.
        group: the classes of the sub-model; all of them for the single student.
        distillation: share of the teacher in the targets.
        seed: which out-of-group pictures stand for "other" in validation.
        rows: pictures of an epoch if not as many as the group has: the single student gets a sub-model's.
    """
    count = logits_of_group(len(dataset.classes), group)
    labels = relabel(dataset.train.labels, group)
    taught = softmax(regroup(teacher_logits, group))
    targets = distillation * taught + (1 - distillation) * one_hot(labels, count)[:, np.newaxis]
    choose = _chooser(labels, len(group), rows)
    validation = relabel(dataset.validation.labels, group)
    measured = np.sort(_chooser(validation, len(group))(np.random.default_rng(seed)))
    return GroupData(
        Examples(dataset.train.images, targets.astype(np.float32)),
        choose,
        len(choose(np.random.default_rng(seed))),
        dataset.validation.images[measured],
        validation[measured],
    )


def retrain(
    student: Checkpoint,
    data: GroupData,
    settings: RetrainSettings,
    *,
    seed: int,
    report: Callable[[float, str], None],
) -> tuple[Checkpoint, float]:
    """Train a cut model; the epoch that is best on validation is kept.

    Args:
        student: the cut weights, with a fresh head.
        data: of its group.
        settings: schedule and distillation.
        seed: decides the order of pictures and their augmentation.
        report: told the share done and a few words after every epoch.

    Returns:
        The retrained model and its validation accuracy.
    """
    keras.utils.set_random_seed(seed)
    model = from_checkpoint(student)
    forward = Forward(model)
    best, best_accuracy = student.weights, -1.0
    epochs = settings.schedule.epochs

    def after_epoch(epoch: int) -> None:
        nonlocal best, best_accuracy
        accuracy = forward.accuracy(data.images, data.labels)
        if accuracy > best_accuracy:
            best, best_accuracy = read_weights(model), accuracy
        report(epoch / epochs, f"epoch {epoch} of {epochs}, validation {accuracy:.2%}")

    batch = settings.schedule.batch
    fit(
        model,
        data.examples.batches(batch, data.choose),
        steps_of(data.rows, batch),
        settings.schedule,
        seed=seed,
        after_epoch=after_epoch,
    )
    return with_weights(student, best), best_accuracy


def with_weights(checkpoint: Checkpoint, weights: Weights) -> Checkpoint:
    """The same model with other weights."""
    return Checkpoint(checkpoint.config, weights, checkpoint.labels, checkpoint.details)


def _chooser(labels: NDArray[np.int64], other: int, limit: int | None = None) -> Choose:
    """Rows of the group, and as many of the others, drawn anew each time, as a class of the group has."""
    own, others = np.flatnonzero(labels != other), np.flatnonzero(labels == other)
    drawn = min(len(others), max(1, round(len(own) / other)))

    def choose(generator: np.random.Generator) -> NDArray[np.int64]:
        rows = np.concatenate([own, generator.choice(others, drawn, replace=False)]) if drawn else own
        return rows if limit is None else generator.choice(rows, min(limit, len(rows)), replace=False)

    return choose
