"""Refine all sub-models and a fusion together, after each sub-model was retrained on its own.

Alone, a sub-model cannot know what the others miss. Here the loss is that of the fused answer, which reaches
every sub-model through the fusion; each keeps its own logits by its group's loss. In a share of the examples
sub-models are left out, so that none leans on another. This goes past ED-ViT, where sub-models never meet
before the fusion. The fusion of this step serves the training alone: the one that is kept is trained
afterwards, on what the finished sub-models give.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.balance import draw
from edvit_tf.build.data import Dataset
from edvit_tf.build.fusion import build_fusion, leave_out
from edvit_tf.build.grouping import Choose
from edvit_tf.build.resume import Best, Snapshots
from edvit_tf.build.retrain import group_targets, mixed_targets, with_weights
from edvit_tf.build.training import Batches, Examples, Forward, Loss, Schedule, cross_entropy, fit, steps_of
from edvit_tf.runtime.ensemble import Judge, judge_of
from edvit_tf.vit.checkpoint import Checkpoint
from edvit_tf.vit.keras import keras, tf
from edvit_tf.vit.model import from_checkpoint, read_weights

OWN_SHARE = 0.3
"""Weight of the sub-models' own losses, their mean, beside the fused one."""


@dataclass(frozen=True, slots=True)
class RefineData:
    """What all sub-models learn from together.

    Attributes:
        examples: training pictures; their targets are over all classes, then over each group and "other".
        own: logits of each sub-model.
        choose: the rows of an epoch.
        images, labels: of validation.
        judge: how right fused logits are of those labels.
    """

    examples: Examples
    own: tuple[int, ...]
    choose: Choose
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    judge: Judge


def refine_data(
    dataset: Dataset,
    teacher_logits: NDArray[np.float32],
    groups: Sequence[tuple[int, ...]],
    *,
    distillation: float,
    balance: bool,
    shift: int,
) -> RefineData:
    """What sub-models of these groups learn from together.

    Args:
        dataset: the splits, labelled with all classes.
        teacher_logits: f32 [n, views, classes] for the training split.
        groups: the classes of each sub-model.
        distillation: share of the teacher in the targets.
        balance: whether a class counts the same however many pictures it has, see `balance.py`.
        shift: pixels that a picture is moved by at most.
    """
    train = dataset.train
    everything = np.arange(len(train))
    mixed = [mixed_targets(teacher_logits, train.labels, len(dataset.classes), distillation)]
    mixed += [group_targets(teacher_logits, train.labels, group, distillation) for group in groups]
    return RefineData(
        Examples(train.images, np.concatenate(mixed, axis=-1), shift),
        tuple(part.shape[-1] for part in mixed[1:]),
        lambda generator: draw(everything, train.labels, len(train), generator) if balance else everything,
        np.asarray(dataset.validation.images),
        np.asarray(dataset.validation.labels),
        judge_of(balance),
    )


def refine(
    students: Sequence[Checkpoint],
    data: RefineData,
    schedule: Schedule,
    *,
    left_out: float,
    keep_zeros: bool = False,
    seed: int,
    report: Callable[[float, str], None],
    snapshots: Snapshots | None = None,
) -> tuple[list[Checkpoint], float]:
    """Train sub-models through a fusion; the epoch whose fused answer is best on validation is kept.

    Args:
        students: the retrained sub-models, in the order of the data's groups.
        data: what they learn from.
        schedule: epochs, learning rate and so on.
        left_out: share of examples that miss one sub-model or more.
        keep_zeros: whether the zeros of Dense kernels stay, see `sparsity.py`.
        seed: decides the fusion's first weights, the order of pictures, and who is left out.
        report: told the share done and a few words after every epoch.
        snapshots: where an interrupted training is taken up again.

    Returns:
        The refined sub-models and the validation accuracy of their fused answer.
    """
    keras.utils.set_random_seed(seed)
    models = [from_checkpoint(student) for student in students]
    classes = data.examples.targets.shape[-1] - sum(data.own)
    together = _Together(models, build_fusion([student.config.width for student in students], classes))
    forward = Forward(together.answer_of_all)
    best = Best(_weights_of(models))

    def after_epoch(epoch: int) -> None:
        reached = data.judge(forward(data.images)["logits"], data.labels)
        best.offer(reached, lambda: _weights_of(models))
        report(epoch / schedule.epochs, f"epoch {epoch} of {schedule.epochs}, validation {reached:.2%}")

    fit(
        together,
        _batches(data, schedule.batch, len(models), left_out),
        steps_of(len(data.examples), schedule.batch),
        schedule,
        loss=_loss(classes, data.own),
        keep_zeros=keep_zeros,
        seed=seed,
        after_epoch=after_epoch,
        best=best,
        snapshots=snapshots,
    )
    refined = [
        with_weights(student, {name: best.weights[f"{index}:{name}"] for name in student.weights})
        for index, student in enumerate(students)
    ]
    return refined, best.accuracy


class _Together(keras.Model):  # type: ignore[misc]
    """Sub-models under a fusion: `image`, `present` f32 [b, N] → fused `logits`, and `own` ones in a row."""

    def __init__(self, submodels: Sequence[Any], fusion: Any) -> None:
        super().__init__()
        self._submodels = list(submodels)
        self._fusion = fusion

    def call(self, inputs: Any, training: bool = False) -> Any:
        present = inputs["present"]
        answers = [model(inputs["image"], training=training) for model in self._submodels]
        features = [answer["feature"] * present[:, i : i + 1] for i, answer in enumerate(answers)]
        fused = self._fusion(
            {"features": tf.concat(features, axis=-1), "present": present}, training=training
        )
        own = tf.concat([answer["logits"] for answer in answers], axis=-1)
        return {"logits": fused["logits"], "own": own}

    def answer_of_all(self, images: Any, training: bool = False) -> Any:
        """The answer when nobody is missing."""
        present = tf.ones([images.shape[0], len(self._submodels)])
        return self({"image": images, "present": present}, training=training)


def _loss(classes: int, own: tuple[int, ...]) -> Loss:
    def loss(answer: Any, targets: Any) -> Any:
        fused, *groups = tf.split(targets, [classes, *own], axis=-1)
        each = [
            cross_entropy(logits, group)
            for logits, group in zip(tf.split(answer["own"], own, axis=-1), groups, strict=True)
        ]
        return cross_entropy(answer, fused) + OWN_SHARE * tf.add_n(each) / len(each)

    return loss


def _batches(data: RefineData, size: int, submodels: int, share: float) -> Batches:
    pictures = data.examples.batches(size, data.choose)

    def epoch(generator: np.random.Generator) -> Iterator[tuple[Any, NDArray[np.float32]]]:
        for images, targets in pictures(generator):
            present = leave_out(len(images), submodels, share, generator)
            yield {"image": images, "present": present.astype(np.float32)}, targets

    return epoch


def _weights_of(models: Sequence[Any]) -> dict[str, NDArray[np.float32]]:
    return {
        f"{index}:{name}": weight
        for index, model in enumerate(models)
        for name, weight in read_weights(model).items()
    }
