"""Retrain a sub-model on its group, or a student on all classes: the teacher taught, labels checked.

Out-of-group images are one extra class, "other", its logit the last; every epoch draws some of them (EC-SNN;
ED-ViT, arXiv 2410.11650). The loss is cross-entropy with the label plus KL(teacher ‖ student) on the
teacher's logits regrouped to the group's classes and "other" (UP-ViTs, arXiv 2111.15127).

The fusion reads features, not logits, and a feature that only tells a group from the rest has forgotten what
the others could not see. The class token can be matched with the teacher's (DeViT, arXiv 2309.05015) where it
matters: a linear layer on it, dropped after training, must give the teacher's answer for all classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.augment import Augment
from edvit_tf.build.data import Dataset
from edvit_tf.build.grouping import Choose, chooser, logits_of_group, regroup, relabel
from edvit_tf.build.resume import Best, Snapshots
from edvit_tf.build.training import Examples, Forward, Loss, Schedule, cross_entropy, fit, one_hot, steps_of
from edvit_tf.runtime.ensemble import Judge, judge_of
from edvit_tf.runtime.fusion import softmax
from edvit_tf.vit.checkpoint import Checkpoint, Weights
from edvit_tf.vit.keras import keras
from edvit_tf.vit.model import from_checkpoint, read_weights


@dataclass(frozen=True, slots=True)
class GroupData:
    """A data set as one group sees it.

    Attributes:
        examples: training pictures; their targets are over the group's classes and "other", `own` of them,
            and then over all classes.
        own: logits of the sub-model.
        choose: the rows of an epoch: the whole group and some of the others.
        rows: how many that are.
        measured: rows of the validation split that accuracy is measured on, chosen like an epoch, once.
        images, labels: those pictures, and their classes in the group.
        judge: how right logits are of those labels.
    """

    examples: Examples
    own: int
    choose: Choose
    rows: int
    measured: NDArray[np.int64]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    judge: Judge

    @property
    def own_examples(self) -> Examples:
        """The same pictures with the sub-model's own targets alone."""
        return replace(self.examples, targets=self.examples.targets[..., : self.own])


def group_data(
    dataset: Dataset,
    teacher_logits: NDArray[np.float32],
    group: tuple[int, ...],
    *,
    distillation: float,
    others: float,
    balance: bool,
    shift: int,
    seed: int,
    rows: int | None = None,
) -> GroupData:
    """What one sub-model learns from and is measured on.

    Args:
        dataset: the splits, labelled with all classes.
        teacher_logits: f32 [n, views, classes] for the training split; with `balance` freed of their prior.
        group: the classes of the sub-model; all of them for the single student.
        distillation: share of the teacher in the targets.
        others: out-of-group pictures of an epoch, in the group's pictures a class.
        balance: whether a class counts the same however many pictures it has, see `balance.py`.
        shift: pixels that a picture is moved by at most.
        seed: which out-of-group pictures stand for "other" in validation.
        rows: pictures of an epoch if not as many as the group has: the single student gets a sub-model's.
    """
    labels = relabel(dataset.train.labels, group)
    own = group_targets(teacher_logits, dataset.train.labels, group, distillation)
    everything = mixed_targets(teacher_logits, dataset.train.labels, len(dataset.classes), distillation)
    choose = chooser(
        labels, len(group), others=others, limit=rows, balanced_by=dataset.train.labels if balance else None
    )
    validation = relabel(dataset.validation.labels, group)
    measured = np.sort(chooser(validation, len(group))(np.random.default_rng(seed)))
    return GroupData(
        Examples(dataset.train.images, np.concatenate([own, everything], axis=-1), shift),
        own.shape[-1],
        choose,
        len(choose(np.random.default_rng(seed))),
        measured,
        dataset.validation.images[measured],
        validation[measured],
        judge_of(balance),
    )


def mixed_targets(
    teacher_logits: NDArray[np.float32], labels: NDArray[np.int64], classes: int, distillation: float
) -> NDArray[np.float32]:
    """Teacher and label mixed: probabilities f32 [n, views, classes].

    Args:
        teacher_logits: f32 [n, views, classes].
        labels: int64 [n].
        classes: how many there are.
        distillation: share of the teacher, 0 to 1.
    """
    truth = one_hot(labels, classes)[:, np.newaxis]
    return np.asarray(distillation * softmax(teacher_logits) + (1 - distillation) * truth, np.float32)


def group_targets(
    teacher_logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    group: tuple[int, ...],
    distillation: float,
) -> NDArray[np.float32]:
    """The same over a group's classes and "other": f32 [n, views, `logits_of_group`]."""
    count = logits_of_group(teacher_logits.shape[-1], group)
    return mixed_targets(regroup(teacher_logits, group), relabel(labels, group), count, distillation)


def retrain(
    student: Checkpoint,
    data: GroupData,
    schedule: Schedule,
    *,
    matching: float,
    seed: int,
    report: Callable[[float, str], None],
    snapshots: Snapshots | None = None,
    augment: Augment | None = None,
) -> tuple[Checkpoint, float]:
    """Train a cut model; the epoch that is best on validation is kept.

    Args:
        student: the cut weights, with a fresh head.
        data: of its group.
        schedule: epochs, learning rate and so on.
        matching: weight of the class token's loss beside the logits'; 0 leaves it out.
        seed: decides the order of pictures and their augmentation.
        report: told the share done and a few words after every epoch.
        snapshots: where an interrupted training is taken up again.
        augment: what is done to pictures beside moving and mirroring them.

    Returns:
        The retrained model and its validation accuracy, the mean over classes if the data is balanced.
    """
    keras.utils.set_random_seed(seed)
    model = from_checkpoint(student)
    best = Best(student.weights)
    train_on_group(
        model,
        data,
        schedule,
        best,
        matching=matching,
        seed=seed,
        report=report,
        snapshots=snapshots,
        augment=augment,
    )
    return with_weights(student, dict(best.weights)), best.accuracy


def train_on_group(
    model: Any,
    data: GroupData,
    schedule: Schedule,
    best: Best,
    *,
    matching: float,
    seed: int,
    report: Callable[[float, str], None],
    snapshots: Snapshots | None = None,
    augment: Augment | None = None,
    weights_of: Callable[[Any], Weights] = read_weights,
) -> None:
    """Train any Keras model that gives `feature` and `logits`; `best` is offered `weights_of` every epoch."""
    forward = Forward(model)
    epochs = schedule.epochs

    def after_epoch(epoch: int) -> None:
        reached = data.judge(forward(data.images)["logits"], data.labels)
        best.offer(reached, lambda: weights_of(model))
        report(epoch / epochs, f"epoch {epoch} of {epochs}, validation {reached:.2%}")

    batch = schedule.batch
    fit(
        _tutored(model, data) if matching else model,
        (data.examples if matching else data.own_examples).batches(batch, data.choose, augment),
        steps_of(data.rows, batch),
        schedule,
        loss=_matched(data.own, matching) if matching else cross_entropy,
        seed=seed,
        after_epoch=after_epoch,
        best=best,
        snapshots=snapshots,
    )


def _tutored(model: Any, data: GroupData) -> Any:
    """The model with one more output: logits of all classes, a linear function of its class token."""
    classes = data.examples.targets.shape[-1] - data.own
    everything = keras.layers.Dense(classes, name="tutor")(model.output["feature"])
    return keras.Model(model.input, {**model.output, "everything": everything})


def _matched(own: int, matching: float) -> Loss:
    def loss(answer: Any, targets: Any) -> Any:
        return cross_entropy(answer, targets[:, :own]) + matching * cross_entropy(
            answer["everything"], targets[:, own:]
        )

    return loss


def with_weights(checkpoint: Checkpoint, weights: Weights) -> Checkpoint:
    """The same model with other weights."""
    return Checkpoint(checkpoint.config, weights, checkpoint.labels, checkpoint.details)
