"""Flatbuffers that must not go into a bundle."""

from typing import Any

import numpy as np
import pytest
from edvit_converters.check import check, check_graph, keras_answers
from edvit_converters.tflite import convert, convert_fusion

from edvit_tf.build.fusion import build_fusion
from edvit_tf.errors import ModelError
from edvit_tf.runtime.interpreter import Flatbuffer
from edvit_tf.vit.keras import tf
from tests.converters.models import UNIFORM, random_images, random_vit

IMAGES = random_images(UNIFORM)


@pytest.fixture(scope="module")
def flatbuffer() -> bytes:
    return convert(random_vit(UNIFORM), "f32")


def of_function(function: Any, shape: tuple[int | None, ...]) -> bytes:
    """A flatbuffer of one function, custom operators allowed."""
    concrete = tf.function(function).get_concrete_function(tf.TensorSpec(shape, tf.float32, name="image"))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module())
    converter.allow_custom_ops = True
    return bytes(converter.convert())


def test_operators_that_are_not_built_in_are_named() -> None:
    with pytest.raises(ModelError, match="Digamma") as caught:
        check_graph(of_function(lambda image: {"feature": tf.math.digamma(image)}, (1, 4)))
    assert caught.value.code == "model.operators"


def test_a_shape_that_is_not_known_is_refused() -> None:
    with pytest.raises(ModelError, match="not known before it runs") as caught:
        check_graph(of_function(lambda image: {"feature": image + 1.0}, (None, 4)))
    assert caught.value.code == "model.shape"


def test_what_is_no_flatbuffer_is_refused() -> None:
    with pytest.raises(ModelError, match="no TFLite flatbuffer"):
        check_graph(b"something else entirely")


def test_another_signature_is_refused() -> None:
    content = of_function(lambda image: {"feature": image + 1.0}, (1, 4))
    model = random_vit(UNIFORM)
    with pytest.raises(ModelError, match="signatures") as caught:
        check(content, "f32", UNIFORM, IMAGES, keras_answers(model, IMAGES))
    assert caught.value.code == "model.signature"


def test_other_weights_are_noticed(flatbuffer: bytes) -> None:
    other = keras_answers(random_vit(UNIFORM, seed=1), IMAGES)
    with pytest.raises(ModelError, match="too far from the Keras model") as caught:
        check(flatbuffer, "f32", UNIFORM, IMAGES, other)
    assert caught.value.code == "model.agreement"


def test_a_small_error_in_one_weight_is_noticed(flatbuffer: bytes) -> None:
    model = random_vit(UNIFORM)
    model.weights["head/bias"][2] += np.float32(0.01)
    with pytest.raises(ModelError, match="too far from the Keras model"):
        check(flatbuffer, "f32", UNIFORM, IMAGES, keras_answers(model, IMAGES))


def test_a_fusion_converts_with_its_names() -> None:
    model = build_fusion((24, 8), 5)
    content = convert_fusion(model)
    check_graph(content)
    loaded = Flatbuffer(content)
    assert {(t.name, t.shape, t.dtype) for t in loaded.inputs} == {
        ("features", (1, 32), "float32"),
        ("present", (1, 2), "float32"),
    }
    arguments = {
        "features": np.random.default_rng(0).standard_normal((1, 32)).astype(np.float32),
        "present": np.array([[1, 0]], np.float32),
    }
    expected = model(arguments)["logits"].numpy()
    np.testing.assert_allclose(loaded.call(arguments)["logits"], expected, atol=1e-5)
    assert convert_fusion(model) == content
