"""The graph that is converted computes what Keras computes, whatever is folded into its weights."""

from dataclasses import replace

import numpy as np
import pytest
from edvit_converters.compact import compact
from edvit_converters.graph import rewrite, serving
from edvit_converters.tflite import convert

from edvit_tf.runtime.interpreter import Flatbuffer
from edvit_tf.vit.config import BlockConfig, ViTConfig
from edvit_tf.vit.keras import tf
from edvit_tf.vit.model import from_checkpoint
from tests.converters.models import PRUNED, UNIFORM, random_images, random_vit

MANY_HEADS = replace(UNIFORM, blocks=(BlockConfig(7, 64),) * 2)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("config", [UNIFORM, PRUNED, MANY_HEADS])
def test_every_rewrite_is_exact(config: ViTConfig, fuse: bool) -> None:
    model = random_vit(config)
    images = random_images(config, 3)
    expected = from_checkpoint(model).predict_on_batch(images)
    serve = serving(config, rewrite(config, model.weights), fuse=fuse)
    for index in range(len(images)):
        found = serve(tf.constant(images[index : index + 1]))
        for name in ("feature", "logits"):
            np.testing.assert_allclose(found[name].numpy()[0], expected[name][index], atol=2e-4)


def test_the_stream_has_no_mean_left_to_subtract() -> None:
    weights = rewrite(UNIFORM, random_vit(UNIFORM).weights)
    for name in ("patch_embedding/kernel", "block_0_projection/kernel", "block_1_mlp_down/bias"):
        np.testing.assert_allclose(weights[name].mean(axis=-1), 0, atol=1e-6)


def test_a_compact_flatbuffer_stays_as_it_is_and_answers_the_same() -> None:
    made = convert(random_vit(UNIFORM), "int4-dynamic")
    again = compact(made)
    assert len(again) <= len(made)
    image = random_images(UNIFORM, 1)[0]
    np.testing.assert_array_equal(Flatbuffer(again).run(image).logits, Flatbuffer(made).run(image).logits)
