from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edvit_tf.build.data import Dataset
from edvit_tf.build.progress import Silent
from edvit_tf.build.resume import Snapshots
from edvit_tf.build.retrain import GroupData, group_data, retrain
from edvit_tf.build.sparsity import sparsify
from edvit_tf.build.surgery import of_group
from edvit_tf.build.teacher import TeacherSettings, teacher_logits, train_teacher
from edvit_tf.build.training import Schedule
from edvit_tf.errors import TrainingError
from edvit_tf.vit.checkpoint import Checkpoint
from tests.build.conftest import CONFIG, Eager

GROUP = (0, 2, 5)
SCHEDULE = Schedule(epochs=4, batch=32, rate=2e-3)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def student(teacher: Checkpoint) -> Checkpoint:
    return of_group(teacher, GROUP)


@pytest.fixture(scope="module")
def data(teacher: Checkpoint, dataset: Dataset) -> GroupData:
    logits = teacher_logits(teacher, dataset.train.images, mirrored=False)
    return group_data(dataset, logits, GROUP, distillation=0.5, others=1.0, balance=False, shift=2, seed=1)


def ignore(done: float, message: str) -> None:
    pass


def die_at_half(done: float, message: str) -> None:
    if done > 0.5:
        raise Killed(message)


def test_an_interrupted_retraining_ends_with_the_same_weights(
    student: Checkpoint, data: GroupData, tmp_path: Path
) -> None:
    whole, reached = retrain(student, data, SCHEDULE, matching=1.0, seed=1, report=ignore)
    file = tmp_path / "state"
    with pytest.raises(Killed):
        retrain(student, data, SCHEDULE, matching=1.0, seed=1, report=die_at_half, snapshots=Eager(file))
    epochs: list[str] = []
    resumed, again = retrain(
        student,
        data,
        SCHEDULE,
        matching=1.0,
        seed=1,
        report=lambda _, text: epochs.append(text),
        snapshots=Eager(file),
    )
    assert [text.split(",")[0] for text in epochs] == ["epoch 3 of 4", "epoch 4 of 4"]
    assert again == reached
    for name, weight in whole.weights.items():
        assert resumed.weights[name].tobytes() == weight.tobytes(), name


@pytest.mark.slow
def test_an_interrupted_pruning_ends_with_the_same_zeros(
    student: Checkpoint, data: GroupData, tmp_path: Path
) -> None:
    whole, _ = sparsify(student, data, SCHEDULE, 0.5, seed=1, report=ignore)
    file = tmp_path / "state"
    with pytest.raises(Killed):
        sparsify(student, data, SCHEDULE, 0.5, seed=1, report=die_at_half, snapshots=Eager(file))
    resumed, _ = sparsify(student, data, SCHEDULE, 0.5, seed=1, report=ignore, snapshots=Eager(file))
    for name, weight in whole.weights.items():
        assert resumed.weights[name].tobytes() == weight.tobytes(), name


@pytest.mark.slow
def test_an_interrupted_teacher_goes_on_and_another_one_does_not(dataset: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "state"
    settings = TeacherSettings(seed=1, schedule=replace(SCHEDULE, batch=48))

    class Dying:
        def update(self, _: str, done: float, message: str) -> None:
            if done > 0.5:
                raise Killed(message)

    class Listening:
        def __init__(self) -> None:
            self.epochs: list[str] = []

        def update(self, _: str, done: float, message: str) -> None:
            assert 0 < done <= 1
            self.epochs.append(message.partition(",")[0])

    whole = train_teacher(CONFIG, dataset, settings, Silent())
    for seed, epochs in ((2, 4), (1, 3)):
        with pytest.raises(Killed):
            train_teacher(CONFIG, dataset, settings, Dying(), state=file)
        told = Listening()
        resumed = train_teacher(CONFIG, dataset, replace(settings, seed=seed), told, state=file)
        assert len(told.epochs) == epochs
        assert not file.exists()
        same = [np.array_equal(resumed.weights[name], w) for name, w in whole.weights.items()]
        assert all(same) == (seed == 1)


def test_a_damaged_state_is_none(tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.write_bytes(b"half")
    assert Snapshots(file).restore([], np.random.default_rng(1), None) == 0


def test_a_loss_that_is_no_number_stops_the_training_and_the_last_state_stays(
    student: Checkpoint, data: GroupData, tmp_path: Path
) -> None:
    file = tmp_path / "state"
    with pytest.raises(Killed):
        retrain(student, data, SCHEDULE, matching=1.0, seed=1, report=die_at_half, snapshots=Eager(file))
    kept = file.read_bytes()
    data.examples.targets[:] = np.where(data.examples.targets > 0, np.nan, 0)
    with pytest.raises(TrainingError, match=r"after epoch 3 of 4: lower the learning rate \(it was 0\.002\)"):
        retrain(student, data, SCHEDULE, matching=1.0, seed=1, report=ignore, snapshots=Eager(file))
    assert file.read_bytes() == kept
