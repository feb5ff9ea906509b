"""The fusion of the golden bundle, held against the numbers that every language is held against."""

import json
from typing import Any

import numpy as np
import pytest

from edvit_tf.bundle.reader import open_bundle
from edvit_tf.errors import ModelError
from edvit_tf.runtime.fusion import Fusion, softmax
from tests.runtime.golden import GOLDEN

EXPECTED = json.loads((GOLDEN.parent / "fusion.json").read_text())
FEATURES = {name: np.array(values, np.float32) for name, values in EXPECTED["features"].items()}
SIZE = len(FEATURES["submodel-0"])


@pytest.fixture(scope="module")
def fusion() -> Fusion:
    return Fusion(open_bundle(GOLDEN))


@pytest.mark.parametrize("case", EXPECTED["cases"], ids=lambda case: "-".join(case["missing"]) or "all")
def test_golden_probabilities(fusion: Fusion, case: dict[str, Any]) -> None:
    without = {name: None if name in case["missing"] else feature for name, feature in FEATURES.items()}
    probabilities = fusion.probabilities(without)
    np.testing.assert_allclose(probabilities, case["probabilities"], atol=EXPECTED["tolerance"])
    left_out = {name: feature for name, feature in without.items() if feature is not None}
    np.testing.assert_array_equal(fusion.probabilities(left_out), probabilities)


def test_the_temperature_is_the_one_for_the_number_missing(fusion: Fusion) -> None:
    only = {"submodel-0": FEATURES["submodel-0"]}
    raw = fusion._flatbuffer.call(
        {
            "features": np.concatenate([only["submodel-0"], np.zeros_like(FEATURES["submodel-1"])])[
                np.newaxis
            ],
            "present": np.array([[1, 0]], np.float32),
        }
    )["logits"][0]
    np.testing.assert_allclose(
        fusion.logits(only), raw / 2.0, rtol=1e-6
    )  # make_golden.py: 2.0 for one missing


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({}, "No sub-model has answered"),
        (dict.fromkeys(FEATURES), "No sub-model has answered"),
        ({"stranger": np.zeros(SIZE, np.float32)}, "stranger is no sub-model"),
        ({"submodel-0": np.zeros(SIZE - 1, np.float32)}, f"{SIZE} finite float32 numbers"),
        ({"submodel-0": np.zeros(SIZE, np.float64)}, f"{SIZE} finite float32 numbers"),
        ({"submodel-0": np.full(SIZE, np.nan, np.float32)}, f"{SIZE} finite float32 numbers"),
    ],
)
def test_features_that_do_not_fit_are_refused(
    fusion: Fusion, features: dict[str, np.ndarray | None], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        fusion.probabilities(features)


def test_softmax_bears_large_logits_and_does_not_care_for_a_shift() -> None:
    logits = np.array([[1000.0, 1001.0, 999.0], [-5.0, 0.0, 5.0]], np.float32)
    probabilities = softmax(logits)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(softmax(logits - 1000), probabilities, rtol=1e-3)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), [1, 2])
