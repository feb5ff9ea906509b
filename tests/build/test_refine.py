"""Sub-models that are trained together: better fused, deterministic, resumed, and each still itself."""

from pathlib import Path

import numpy as np
import pytest

from edvit_tf.build.data import Dataset
from edvit_tf.build.refine import RefineData, refine, refine_data
from edvit_tf.build.resume import Snapshots
from edvit_tf.build.retrain import with_weights
from edvit_tf.build.settings import ExportSettings
from edvit_tf.build.sparsity import sparsity_of
from edvit_tf.build.stages import TeacherRecipes, of_alone, of_refined
from edvit_tf.build.store import Recipe
from edvit_tf.build.surgery import group_head
from edvit_tf.build.teacher import teacher_logits
from edvit_tf.build.training import Forward, Schedule
from edvit_tf.build.widths import Widths
from edvit_tf.vit.checkpoint import Checkpoint
from edvit_tf.vit.model import from_checkpoint
from tests.build.conftest import Eager

GROUPS = ((0, 2, 5), (1, 3, 4))
SCHEDULE = Schedule(epochs=4, batch=32, rate=2e-3)


@pytest.fixture(scope="module")
def students(teacher: Checkpoint) -> list[Checkpoint]:
    made = []
    for group in GROUPS:
        config, weights = group_head(teacher.config, teacher.weights, group, other=True)
        labels = (*(teacher.labels[index] for index in group), "other")
        made.append(Checkpoint(config, weights, labels))
    return made


@pytest.fixture(scope="module")
def data(teacher: Checkpoint, dataset: Dataset) -> RefineData:
    logits = teacher_logits(teacher, dataset.train.images, mirrored=False)
    return refine_data(dataset, logits, GROUPS, distillation=0.5, balance=True, shift=2)


def run(
    students: list[Checkpoint], data: RefineData, told: list[str], snapshots: Snapshots | None = None
) -> tuple[list[Checkpoint], float]:
    def report(_: float, text: str) -> None:
        told.append(text)
        if snapshots is not None and len(told) == 3:
            raise KeyboardInterrupt

    return refine(students, data, SCHEDULE, left_out=0.4, seed=1, report=report, snapshots=snapshots)


def test_the_fused_answer_is_learnt_and_each_keeps_its_own(
    students: list[Checkpoint], data: RefineData, dataset: Dataset
) -> None:
    told: list[str] = []
    refined, reached = run(students, data, told)
    assert len(told) == SCHEDULE.epochs
    assert reached > 0.8
    for before, after, group in zip(students, refined, GROUPS, strict=True):
        assert after.labels == before.labels
        assert any(not np.array_equal(after.weights[name], w) for name, w in before.weights.items())
        own = np.isin(dataset.validation.labels, group)
        logits = Forward(from_checkpoint(after))(dataset.validation.images)["logits"]
        assert np.mean((logits.argmax(axis=1) < len(group)) == own) > 0.8


@pytest.mark.slow
def test_an_interrupted_refining_ends_with_the_same_weights(
    students: list[Checkpoint], data: RefineData, tmp_path: Path
) -> None:
    whole, reached = run(students, data, [])
    state = Eager(tmp_path / "state")
    with pytest.raises(KeyboardInterrupt):
        run(students, data, [], state)
    told: list[str] = []
    resumed, again = run(students, data, told, state)
    assert [text.partition(",")[0] for text in told] == ["epoch 3 of 4", "epoch 4 of 4"]
    assert again == reached
    for one, other in zip(whole, resumed, strict=True):
        for name, weight in one.weights.items():
            assert weight.tobytes() == other.weights[name].tobytes(), name


def test_zeros_in_dense_kernels_stay_when_told_to(students: list[Checkpoint], data: RefineData) -> None:
    sparse = []
    for student in students:
        weights = dict(student.weights)
        for name in sparsity_of(weights):
            weights[name] = np.where(np.indices(weights[name].shape).sum(axis=0) % 2, weights[name], 0)
        sparse.append(with_weights(student, weights))
    schedule = Schedule(epochs=1, batch=32, rate=2e-3)

    def zeros_after(*, keep_zeros: bool) -> float:
        refined, _ = refine(
            sparse, data, schedule, left_out=0.4, keep_zeros=keep_zeros, seed=1, report=lambda *_: None
        )
        return min(min(sparsity_of(student.weights).values()) for student in refined)

    assert zeros_after(keep_zeros=True) == 0.5
    assert zeros_after(keep_zeros=False) < 0.1


def test_one_submodel_has_nobody_to_meet() -> None:
    settings = ExportSettings(model="m", data="d", devices=2, out="o")
    some = Recipe("data", {})
    taught = TeacherRecipes(some, some, some, ((0, 1),), (some,))
    alone = [of_alone(settings, taught, f"s{i}", (i,), Widths(4, 1, 8, 8), None, None) for i in range(2)]
    assert of_refined(settings, taught, [(0,)], alone[:1]) is None
    both = of_refined(settings, taught, [(0,), (1,)], alone)
    assert both is not None
    assert both.stage == "refine"
    unrefined = ExportSettings(model="m", data="d", devices=2, out="o", refine_epochs=0)
    assert of_refined(unrefined, taught, [(0,), (1,)], alone) is None
