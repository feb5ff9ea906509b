from collections.abc import Iterator

import numpy as np
import pytest

from edvit_tf.build.data import Dataset
from edvit_tf.build.grouping import logits_of_group, regroup, relabel
from edvit_tf.build.progress import Silent
from edvit_tf.build.retrain import group_data, retrain
from edvit_tf.build.surgery import of_group
from edvit_tf.build.teacher import TeacherSettings, teacher_logits, train_teacher
from edvit_tf.build.training import Examples, Forward, Schedule, move, one_hot
from edvit_tf.errors import UsageError
from edvit_tf.vit.checkpoint import Checkpoint
from edvit_tf.vit.config import ImageSize
from edvit_tf.vit.model import from_checkpoint
from tests.build.conftest import CONFIG

GROUP = (1, 4)


def test_the_teacher_learns_and_keeps_what_it_was_made_from(teacher: Checkpoint, dataset: Dataset) -> None:
    forward = Forward(from_checkpoint(teacher))
    reached = forward.accuracy(dataset.validation.images, dataset.validation.labels)
    assert reached > 0.9
    assert reached == pytest.approx(float(str(teacher.details["validation_accuracy"])))
    assert teacher.labels == dataset.classes
    assert teacher.config.mean == pytest.approx((dataset.train.images.mean(),))


def test_the_best_epoch_is_kept_as_soon_as_there_is_one(dataset: Dataset) -> None:
    kept: list[Checkpoint] = []
    settings = TeacherSettings(seed=1, schedule=Schedule(epochs=3, batch=48, rate=3e-3))
    best = train_teacher(CONFIG, dataset, settings, Silent(), keep=kept.append)
    accuracies = [float(str(checkpoint.details["validation_accuracy"])) for checkpoint in kept]
    assert all(np.array_equal(best.weights[name], w) for name, w in kept[-1].weights.items())
    assert accuracies == sorted(accuracies)
    again = train_teacher(CONFIG, dataset, settings, Silent())
    assert all(np.array_equal(best.weights[name], again.weights[name]) for name in best.weights)


def test_pictures_of_another_size_are_refused(dataset: Dataset) -> None:
    from dataclasses import replace

    config = replace(CONFIG, image=ImageSize(16, 16, 1))
    with pytest.raises(UsageError, match="takes"):
        train_teacher(config, dataset, TeacherSettings(seed=1, schedule=Schedule(epochs=1)), Silent())


def test_teacher_logits_have_a_view_of_the_mirror_image(teacher: Checkpoint, dataset: Dataset) -> None:
    images = dataset.train.images[:7]
    both = teacher_logits(teacher, images, mirrored=True)
    assert both.shape == (7, 2, 6)
    mirrored = teacher_logits(teacher, np.ascontiguousarray(images[:, :, ::-1]), mirrored=False)
    np.testing.assert_allclose(both[:, 1], mirrored[:, 0], atol=1e-5)
    assert not np.allclose(both[:, 0], both[:, 1])


def test_other_is_the_last_label_and_has_the_rest_of_the_probability() -> None:
    assert relabel(np.array([0, 1, 2, 3, 4, 5]), GROUP).tolist() == [2, 0, 2, 2, 1, 2]
    assert (logits_of_group(6, GROUP), logits_of_group(2, (0, 1))) == (3, 2)
    logits = np.random.default_rng(1).normal(size=(5, 2, 6)).astype(np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    grouped = np.exp(regroup(logits, GROUP)) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(grouped[..., :2], probabilities[..., [1, 4]], rtol=1e-5)
    np.testing.assert_allclose(grouped.sum(axis=-1), 1, rtol=1e-5)
    assert regroup(logits, tuple(range(6))).shape == (5, 2, 6)


def test_an_epoch_has_the_whole_group_and_one_class_worth_of_others(dataset: Dataset) -> None:
    logits = np.zeros((len(dataset.train), 1, 6), np.float32)
    data = group_data(dataset, logits, GROUP, distillation=0.5, others=1.0, balance=False, shift=2, seed=1)
    first, second = (data.choose(np.random.default_rng(seed)) for seed in (1, 2))
    counts = np.bincount(relabel(dataset.train.labels[first], GROUP))
    assert counts.tolist() == [40, 40, 40]
    assert data.rows == 120
    assert set(first) != set(second)  # other out-of-group pictures in every epoch
    assert np.bincount(data.labels).tolist() == [12, 12, 12]
    limited = group_data(
        dataset,
        logits,
        tuple(range(6)),
        distillation=0.5,
        others=1.0,
        balance=False,
        shift=2,
        seed=1,
        rows=120,
    )
    assert limited.rows == 120
    more = group_data(dataset, logits, GROUP, distillation=0.5, others=3.0, balance=False, shift=2, seed=1)
    wider = relabel(dataset.train.labels[more.choose(np.random.default_rng(1))], GROUP)
    assert np.bincount(wider).tolist() == [40, 40, 120]


def test_targets_mix_label_and_teacher(dataset: Dataset) -> None:
    logits = np.zeros((len(dataset.train), 1, 6), np.float32)
    data = group_data(dataset, logits, GROUP, distillation=0.25, others=1.0, balance=False, shift=2, seed=1)
    row = int(np.flatnonzero(dataset.train.labels == 4)[0])
    own, everything = np.split(data.examples.targets[row, 0], [data.own])
    np.testing.assert_allclose(own, 0.25 * np.array([1, 1, 4]) / 6 + [0, 0.75, 0])
    np.testing.assert_allclose(everything, 0.25 / 6 + 0.75 * (np.arange(6) == 4), rtol=1e-6)
    np.testing.assert_array_equal(data.own_examples.targets[row, 0], own)


@pytest.fixture(scope="module")
def student(teacher: Checkpoint) -> Checkpoint:
    return of_group(teacher, GROUP)


def test_a_submodel_learns_its_group(student: Checkpoint, teacher: Checkpoint, dataset: Dataset) -> None:
    logits = teacher_logits(teacher, dataset.train.images, mirrored=False)
    data = group_data(dataset, logits, GROUP, distillation=0.5, others=1.0, balance=False, shift=2, seed=1)
    schedule = Schedule(epochs=4, batch=32, rate=2e-3)
    told: list[float] = []
    trained, reached = retrain(
        student, data, schedule, matching=1.0, seed=1, report=lambda done, _: told.append(done)
    )
    assert reached > 0.9
    assert told == [0.25, 0.5, 0.75, 1.0]
    assert trained.labels == ("bee", "elk", "other")
    again, _ = retrain(student, data, schedule, matching=1.0, seed=1, report=lambda *_: None)
    assert all(np.array_equal(trained.weights[name], again.weights[name]) for name in trained.weights)


def test_a_matched_class_token_tells_classes_apart_that_the_group_does_not(
    student: Checkpoint, teacher: Checkpoint, dataset: Dataset
) -> None:
    logits = teacher_logits(teacher, dataset.train.images, mirrored=False)
    data = group_data(dataset, logits, GROUP, distillation=0.5, others=4.0, balance=False, shift=2, seed=1)
    others = np.flatnonzero(~np.isin(dataset.validation.labels, GROUP))
    images, labels = dataset.validation.images[others], dataset.validation.labels[others]

    def told_apart(matching: float) -> float:
        """Variance of the features between out-of-group classes, over that within them."""
        schedule = Schedule(epochs=6, batch=32, rate=4e-3)
        trained, _ = retrain(student, data, schedule, matching=matching, seed=1, report=lambda *_: None)
        features = Forward(from_checkpoint(trained))(images)["feature"]
        means = np.empty_like(features)
        for index in np.unique(labels):
            means[labels == index] = features[labels == index].mean(axis=0)
        return float(means.var(axis=0).sum() / (features - means).var(axis=0).sum())

    matched, plain = told_apart(1.0), told_apart(0.0)
    assert matched > 1.2 * plain, (matched, plain)


def _first(batches: Iterator[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return next(batches)


def test_mirror_images_are_shown_with_their_own_targets() -> None:
    image = np.zeros((1, 8, 8, 1), np.uint8)
    image[0, :, :4] = 255  # bright on the left, dark after mirroring
    targets = np.stack([one_hot(np.array([0]), 2), one_hot(np.array([1]), 2)], axis=1)
    epoch = Examples(image, targets).batches(1)
    for seed in range(20):
        shown, target = _first(epoch(np.random.default_rng(seed)))
        assert (shown[0, :, :4].mean() < shown[0, :, 4:].mean()) == bool(target[0, 1])


def test_pictures_stay_where_they_are_without_a_shift() -> None:
    image = np.random.default_rng(1).integers(0, 256, (1, 8, 8, 1), dtype=np.uint8)
    targets = one_hot(np.array([0]), 2)[:, np.newaxis]
    for shift in (0, 2):
        epoch = Examples(image, targets, shift).batches(1)
        shown = [_first(epoch(np.random.default_rng(seed)))[0] for seed in range(20)]
        assert all(np.array_equal(image, picture) for picture in shown) == (shift == 0)


def test_moving_keeps_the_size_and_fills_with_the_edge() -> None:
    images = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1).repeat(50, axis=0)
    moved = move(images, 2, np.random.default_rng(1))
    assert moved.shape == images.shape
    assert len({picture.tobytes() for picture in moved}) > 5
    assert all(set(np.unique(picture)) <= set(range(64)) for picture in moved)
    np.testing.assert_array_equal(move(images, 0, np.random.default_rng(1)), images)
