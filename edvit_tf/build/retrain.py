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
from edvit_tf.build.grouping import Choose, chooser, logits_of_group, regroup, relabel
from edvit_tf.build.resume import Best, Snapshots
from edvit_tf.build.training import Examples, Forward, Schedule, fit, one_hot, steps_of
from edvit_tf.runtime.fusion import softmax
from edvit_tf.vit.checkpoint import Checkpoint, Weights
from edvit_tf.vit.keras import keras
from edvit_tf.vit.model import from_checkpoint, read_weights


@dataclass(frozen=True, slots=True)
class GroupData:
    """A data set as one group sees it.

    Attributes:
        examples: training pictures with targets over the group's classes and "other".
        choose: the rows of an epoch: the whole group and about one class's worth of the others.
        rows: how many that are.
        measured: rows of the validation split that accuracy is measured on, chosen like an epoch, once.
        images, labels: those pictures, and their classes in the group.
    """

    examples: Examples
    choose: Choose
    rows: int
    measured: NDArray[np.int64]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


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
    choose = chooser(labels, len(group), rows)
    validation = relabel(dataset.validation.labels, group)
    measured = np.sort(chooser(validation, len(group))(np.random.default_rng(seed)))
    return GroupData(
        Examples(dataset.train.images, targets.astype(np.float32)),
        choose,
        len(choose(np.random.default_rng(seed))),
        measured,
        dataset.validation.images[measured],
        validation[measured],
    )


def retrain(
    student: Checkpoint,
    data: GroupData,
    schedule: Schedule,
    *,
    seed: int,
    report: Callable[[float, str], None],
    snapshots: Snapshots | None = None,
) -> tuple[Checkpoint, float]:
    """Train a cut model; the epoch that is best on validation is kept.

    Args:
        student: the cut weights, with a fresh head.
        data: of its group.
        schedule: epochs, learning rate and so on.
        seed: decides the order of pictures and their augmentation.
        report: told the share done and a few words after every epoch.
        snapshots: where an interrupted training is taken up again.

    Returns:
        The retrained model and its validation accuracy.
    """
    keras.utils.set_random_seed(seed)
    model = from_checkpoint(student)
    forward = Forward(model)
    best = Best(student.weights)
    epochs = schedule.epochs

    def after_epoch(epoch: int) -> None:
        accuracy = forward.accuracy(data.images, data.labels)
        best.offer(accuracy, lambda: read_weights(model))
        report(epoch / epochs, f"epoch {epoch} of {epochs}, validation {accuracy:.2%}")

    batch = schedule.batch
    fit(
        model,
        data.examples.batches(batch, data.choose),
        steps_of(data.rows, batch),
        schedule,
        seed=seed,
        after_epoch=after_epoch,
        best=best,
        snapshots=snapshots,
    )
    return with_weights(student, dict(best.weights)), best.accuracy


def with_weights(checkpoint: Checkpoint, weights: Weights) -> Checkpoint:
    """The same model with other weights."""
    return Checkpoint(checkpoint.config, weights, checkpoint.labels, checkpoint.details)
