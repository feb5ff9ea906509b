"""The graph that is converted computes what Keras computes, whatever is folded into its weights."""

from dataclasses import replace

import numpy as np
import pytest
from edvit_converters import graph
from edvit_converters.compact import compact
from edvit_converters.graph import Serving, is_sparse, rewrite
from edvit_converters.tflite import convert

from edvit_tf.runtime.interpreter import Flatbuffer
from edvit_tf.vit.config import BlockConfig, ViTConfig
from edvit_tf.vit.keras import tf
from edvit_tf.vit.model import from_checkpoint
from tests.converters.models import PRUNED, STEM, UNIFORM, random_images, random_vit

MANY_HEADS = replace(UNIFORM, blocks=(BlockConfig(7, 64),) * 2)


@pytest.mark.parametrize(("fuse", "centred"), [(True, True), (False, True), (True, False)])
@pytest.mark.parametrize("config", [UNIFORM, PRUNED, MANY_HEADS, STEM])
def test_every_rewrite_is_exact(config: ViTConfig, fuse: bool, centred: bool) -> None:
    model = random_vit(config)
    images = random_images(config, 3)
    expected = from_checkpoint(model).predict_on_batch(images)
    weights = rewrite(config, model.weights, centred=centred)
    serve = Serving(config, weights, fuse=fuse, centred=centred)
    for index in range(len(images)):
        found = serve(tf.constant(images[index : index + 1]))
        for name in ("feature", "logits"):
            np.testing.assert_allclose(found[name].numpy()[0], expected[name][index], atol=2e-4)


def test_the_stream_has_no_mean_left_to_subtract() -> None:
    weights = rewrite(UNIFORM, random_vit(UNIFORM).weights, centred=True)
    for name in ("patch_embedding/kernel", "block_0_projection/kernel", "block_1_mlp_down/bias"):
        np.testing.assert_allclose(weights[name].mean(axis=-1), 0, atol=1e-6)


def test_a_sparse_model_keeps_its_zeros() -> None:
    model = random_vit(UNIFORM)
    assert not is_sparse(model.weights)
    weights = {
        name: np.where(np.arange(weight.size).reshape(weight.shape) % 2 == 0, 0, weight).astype(np.float32)
        if name.startswith("block_") and name.endswith("/kernel")
        else weight
        for name, weight in model.weights.items()
    }
    assert is_sparse(weights)
    for name, weight in rewrite(UNIFORM, weights, centred=False).items():
        if name.startswith("block_") and name.endswith("/kernel"):
            assert np.mean(weight == 0) >= 0.5, name


@pytest.mark.parametrize("format_name", ["f32", "int8-dynamic"])
def test_large_kernels_are_variables_on_the_way_and_constants_at_the_end(
    monkeypatch: pytest.MonkeyPatch, format_name: str
) -> None:
    model = random_vit(UNIFORM)
    images = random_images(UNIFORM, 2)
    small = convert(model, format_name)
    monkeypatch.setattr(graph, "_LARGE_KERNEL", 1)
    large = convert(model, format_name)
    assert Flatbuffer(large).operators() == Flatbuffer(small).operators()
    for image in images:
        expected = Flatbuffer(small).run(image).logits
        np.testing.assert_array_equal(Flatbuffer(large).run(image).logits, expected)


def test_a_compact_flatbuffer_stays_as_it_is_and_answers_the_same() -> None:
    made = convert(random_vit(UNIFORM), "int4-dynamic")
    again = compact(made)
    assert len(again) <= len(made)
    image = random_images(UNIFORM, 1)[0]
    np.testing.assert_array_equal(Flatbuffer(again).run(image).logits, Flatbuffer(made).run(image).logits)
