"""A batch that is too large for memory is taken in parts, and nothing else changes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edvit_tf.build import training
from edvit_tf.build.data import Dataset
from edvit_tf.build.training import Examples, Schedule, examples_at_once, fit, one_hot
from edvit_tf.build.widths import narrowed, uniform
from edvit_tf.vit.checkpoint import fresh_weights
from edvit_tf.vit.config import PRESETS
from edvit_tf.vit.model import build, read_weights, write_weights
from tests.build.conftest import CONFIG


def test_parts_of_a_batch_give_the_step_of_the_whole(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = one_hot(dataset.train.labels, 6)[:, np.newaxis]
    examples = Examples(dataset.train.images, targets)
    trained = []
    for numbers in (10**9, 20_000):
        monkeypatch.setattr(training, "_STEP_NUMBERS", numbers)
        model = build(CONFIG)
        write_weights(model, fresh_weights(CONFIG, seed=1))
        assert (examples_at_once(model, 24) == 24) == (numbers == 10**9)
        fit(model, examples.batches(24), 10, Schedule(2, 24, 1e-3), seed=1)
        trained.append(read_weights(model))
    for name, weight in trained[0].items():
        np.testing.assert_allclose(trained[1][name], weight, atol=2e-4, err_msg=name)


def test_what_a_step_keeps_stays_near_a_gigabyte() -> None:
    vit_b = PRESETS["vit-b16"]
    submodel = build(narrowed(vit_b, uniform(vit_b, 2)))
    assert examples_at_once(submodel, 128) == 16
    assert examples_at_once(build(replace(vit_b, blocks=vit_b.blocks[:6])), 128) == 8
    assert examples_at_once(build(PRESETS["fashion-vit"]), 256) == 256  # as ever


@pytest.mark.parametrize(("cool_down", "last"), [(True, 0.0), (False, 1e-3)])
def test_the_rate_rises_and_then_falls_or_stays(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, cool_down: bool, last: float
) -> None:
    optimizers: list[Any] = []

    def remembered(*asked: Any) -> Any:
        optimizers.append(made(*asked))
        return optimizers[0]

    made = training._optimizer
    monkeypatch.setattr(training, "_optimizer", remembered)
    examples = Examples(dataset.train.images, one_hot(dataset.train.labels, 6)[:, np.newaxis])
    rates: list[float] = []
    schedule = Schedule(4, 24, 1e-3, warm_up=0.25, cool_down=cool_down)
    fit(
        build(CONFIG),
        examples.batches(24),
        10,
        schedule,
        seed=1,
        after_epoch=lambda _: rates.append(float(optimizers[0].learning_rate)),
    )
    assert rates[0] == pytest.approx(0.9e-3)  # that the last of ten steps to the top was made with
    assert rates[-1] == pytest.approx(last, abs=1e-5)
