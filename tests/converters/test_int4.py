"""int4 on trained weights: the teacher that ships, and pictures of shapes."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from edvit_converters.check import keras_answers
from edvit_converters.tflite import convert
from numpy.typing import NDArray

from edvit_tf import zoo
from edvit_tf.runtime.check import cosine
from edvit_tf.runtime.ensemble import run_many
from edvit_tf.vit.checkpoint import load

TEACHER = load(zoo.path("fashion-vit"))


def pictures(seed: int, count: int) -> NDArray[np.uint8]:
    """Bright shapes on black, as the teacher knows them: rectangles of several sizes and greys."""
    generator = np.random.default_rng(seed)
    image = TEACHER.config.image
    found = np.zeros((count, image.height, image.width, 1), np.float64)
    for picture in found:
        top, left = generator.integers(0, 12, 2)
        bottom, right = generator.integers(16, 29, 2)
        picture[top:bottom, left:right] = generator.uniform(60, 255)
        picture += generator.normal(0, 12, picture.shape) * (picture > 0)
    return np.clip(found, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def fitted() -> bytes:
    return convert(TEACHER, "int4-dynamic", pictures(0, 256))


def error(flatbuffer: bytes) -> float:
    shown = pictures(1, 100)
    return 1 - cosine(run_many(flatbuffer, shown).features, keras_answers(TEACHER, shown).features)


def kernel_types(flatbuffer: bytes) -> list[int]:
    model = schema.ModelT.InitFromPackedBuf(flatbuffer, 0)
    graph = model.subgraphs[0]
    return [
        graph.tensors[step.inputs[1]].type
        for step in graph.operators
        if model.operatorCodes[step.opcodeIndex].builtinCode == schema.BuiltinOperator.FULLY_CONNECTED
    ]


def test_pictures_take_half_of_the_error_away(fitted: bytes) -> None:
    assert error(fitted) < 0.5 * error(convert(TEACHER, "int4-dynamic"))


def test_the_most_sensitive_weights_stay_int8_within_the_budget(fitted: bytes) -> None:
    types = kernel_types(fitted)
    assert set(types) == {schema.TensorType.INT4, schema.TensorType.INT8}
    assert types.count(schema.TensorType.INT4) > types.count(schema.TensorType.INT8)
    assert len(fitted) < 1.03 * len(convert(TEACHER, "int4-dynamic"))


def test_the_same_pictures_give_the_same_bytes(fitted: bytes) -> None:
    assert convert(TEACHER, "int4-dynamic", pictures(0, 256)) == fitted
