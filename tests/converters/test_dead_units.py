"""Units that pruning has emptied: every format of such a model loads and agrees with Keras."""

from dataclasses import replace

import numpy as np
import pytest
from edvit_converters.check import keras_answers
from edvit_converters.formats import FORMATS
from edvit_converters.gptq import round_kernel
from edvit_converters.tflite import convert

from edvit_tf.runtime.check import cosine
from edvit_tf.runtime.ensemble import run_many
from tests.converters.models import UNIFORM, random_images, random_vit

NAMES = tuple(name for name, entry in FORMATS.items() if entry.maker != "student")


def test_a_row_of_zeros_has_a_scale_that_interpreters_take() -> None:
    kernel = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    kernel[2], kernel[3] = 0, 1e-40
    rounded = round_kernel(kernel, np.eye(8))
    assert (rounded.scale >= np.finfo(np.float32).tiny).all()
    assert not rounded.levels[2:].any()
    assert rounded.levels[:2].any(axis=1).all()


@pytest.mark.parametrize("pictures", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_every_format_loads_and_agrees(name: str, pictures: bool) -> None:
    if FORMATS[name].calibrated and not pictures:
        pytest.skip("it is not made without pictures")
    model = random_vit(UNIFORM)
    weights = {key: np.array(weight) for key, weight in model.weights.items()}
    for block in range(len(UNIFORM.blocks)):
        for layer in ("query", "value", "mlp_up"):
            weights[f"block_{block}_{layer}/kernel"][:, ::3] = 0
            weights[f"block_{block}_{layer}/bias"][::3] = 0
        weights[f"block_{block}_mlp_down/kernel"][:, 5] = 0
    emptied = replace(model, weights=weights)
    images = random_images(UNIFORM)
    flatbuffer = convert(emptied, name, images if pictures else None)
    expected = keras_answers(emptied, images).features
    assert cosine(run_many(flatbuffer, images).features, expected) > 0.95, "garbage has 0.3 or less"
