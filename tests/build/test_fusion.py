import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edvit_tf.build.fusion import (
    FusionData,
    FusionSettings,
    build_fusion,
    calibrate,
    fit_temperature,
    fuse,
    leave_out,
    tower,
    train_fusion,
)
from edvit_tf.build.training import Schedule, one_hot
from edvit_tf.runtime.ensemble import accuracy

SIZES = (6, 4, 6)


def _features(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Each of three parts sees another class of four; a class is known for sure only by its own part."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, rows)
    parts = [
        generator.normal(size=(rows, size)) + 3.0 * (labels == part)[:, np.newaxis]
        for part, size in enumerate(SIZES)
    ]
    return np.concatenate(parts, axis=1).astype(np.float32), labels


@pytest.fixture(scope="module")
def data() -> FusionData:
    features, labels = _features(2000, 1)
    validation, truth = _features(500, 2)
    targets = one_hot(labels, 4)[:, np.newaxis]
    return FusionData(features[:, np.newaxis, np.newaxis], targets, labels, validation, truth, SIZES)


def test_a_lost_submodel_costs_points_not_the_answer(data: FusionData) -> None:
    settings = FusionSettings(Schedule(epochs=6, batch=64, rate=5e-3), left_out=0.4, balance=False)
    model = train_fusion(data, settings, seed=1, report=lambda *_: None)

    def reached(*present: bool) -> float:
        return accuracy(fuse(model, data.validation, SIZES, np.array(present)), data.labels)

    assert reached(True, True, True) > 0.95
    for present in ((False, True, True), (True, False, True), (True, True, False)):
        # Two of four classes are beyond telling apart; half of them are still right.
        assert 0.65 < reached(*present) < reached(True, True, True)
    calibration = calibrate(model, data.validation, data.labels, SIZES)
    assert [entry.missing for entry in calibration] == [0, 1, 2]
    assert all(0.25 <= entry.temperature <= 4 for entry in calibration)
    again = train_fusion(data, settings, seed=1, report=lambda *_: None)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), again.get_weights(), strict=True))


def test_what_is_absent_is_not_looked_at() -> None:
    model = build_fusion(SIZES, 4)
    features = np.ones((3, 16), np.float32)
    changed = features.copy()
    changed[:, 6:10] = 1e6
    absent = np.array([True, False, True])
    np.testing.assert_array_equal(fuse(model, features, SIZES, absent), fuse(model, changed, SIZES, absent))


def test_each_layer_of_the_tower_is_half_the_one_before() -> None:
    assert tower(96, 10) == [96, 48, 24]
    assert tower(1280, 10) == [1280, 640, 320, 160, 80, 40, 20]
    assert tower(8, 10) == [8]


@given(
    rows=st.integers(1, 60), submodels=st.integers(1, 10), seed=st.integers(0, 2**31), share=st.floats(0, 1)
)
def test_somebody_is_always_present(rows: int, submodels: int, seed: int, share: float) -> None:
    present = leave_out(rows, submodels, share, np.random.default_rng(seed))
    assert present.shape == (rows, submodels)
    assert present.any(axis=1).all()


def test_every_number_missing_comes_about_equally_often() -> None:
    present = leave_out(8000, 4, 0.75, np.random.default_rng(1))
    counts = np.bincount(4 - present.sum(axis=1), minlength=4)
    np.testing.assert_allclose(counts, 2000, rtol=0.1)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.0])
def test_the_temperature_is_found_again(true: float) -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(scale=2, size=(20000, 5)).astype(np.float32)
    probabilities = np.exp(logits / true) / np.exp(logits / true).sum(axis=1, keepdims=True)
    labels = (probabilities.cumsum(axis=1) > generator.random((20000, 1))).argmax(axis=1)
    assert fit_temperature(logits, labels) == pytest.approx(true, rel=0.06)
