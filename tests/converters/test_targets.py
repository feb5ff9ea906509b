"""Which formats a target takes, and where each operator of a flatbuffer would run."""

from typing import Any

import pytest
from edvit_converters.targets import TARGETS, check_formats, check_placed, formats_for, report
from edvit_converters.tflite import convert

from edvit_tf.errors import ModelError, UsageError
from edvit_tf.vit.keras import tf
from tests.converters.models import PRUNED, random_images, random_vit


@pytest.fixture(scope="module")
def floats() -> bytes:
    return convert(random_vit(PRUNED), "f32")


@pytest.fixture(scope="module")
def integers() -> bytes:
    return convert(random_vit(PRUNED), "int8-full", random_images(PRUNED))


def of_function(function: Any, *shape: int) -> bytes:
    concrete = tf.function(function).get_concrete_function(tf.TensorSpec(shape, tf.float32, name="image"))
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module()).convert())


def reasons(flatbuffer: bytes, target: str) -> dict[str, str]:
    return {placement.operator: placement.reason for placement in report(flatbuffer, target).fallen_back}


@pytest.mark.parametrize(
    ("target", "name", "instead"),
    [
        ("browser", "int8-full", "int8-dynamic"),
        ("gpu", "int4-dynamic", "f16"),
        ("coral", "int8", "int8,edgetpu"),
        ("cpu", "edgetpu", "--target coral"),
    ],
)
def test_a_format_that_a_target_cannot_run_is_refused(target: str, name: str, instead: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_formats(target, ("f32", name) if target != "coral" else (name,))
    assert caught.value.message == f"{name} is not supported for {target}; use {instead}"


def test_what_is_no_target_is_refused() -> None:
    with pytest.raises(UsageError, match="choose one of any, cpu, gpu, browser, coral"):
        check_formats("moon", ())


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_takes_the_formats_that_are_for_it(target: str) -> None:
    check_formats(target, formats_for(target))


@pytest.mark.parametrize("target", ["any", "cpu", "browser"])
def test_our_flatbuffers_run_whole_on_xnnpack(floats: bytes, integers: bytes, target: str) -> None:
    for flatbuffer in (floats, integers):
        assert report(flatbuffer, target).fallen_back == ()
        check_placed(flatbuffer, target)


def test_a_gpu_leaves_only_the_picture_to_the_processor(floats: bytes) -> None:
    assert list(reasons(floats, "gpu")) == ["CAST"]
    check_placed(floats, "gpu")


def test_a_gpu_takes_no_weights_that_are_rounded_as_it_goes() -> None:
    found = reasons(convert(random_vit(PRUNED), "int8-dynamic"), "gpu")
    assert found["FULLY_CONNECTED"] == "INT8 weights with FLOAT32 inputs: it does not round as it goes"
    with pytest.raises(ModelError, match=r"would not run whole on gpu.*FULLY_CONNECTED"):
        check_placed(convert(random_vit(PRUNED), "int8-dynamic"), "gpu")


def test_an_edge_tpu_takes_no_attention(integers: bytes) -> None:
    found = reasons(integers, "coral")
    assert found["BATCH_MATMUL"] == found["GELU"] == "not in the Edge TPU's list of operators"
    assert "8-bit" in found["SOFTMAX"]
    assert "may have one" in found["FULLY_CONNECTED"]
    with pytest.raises(ModelError, match="would not run whole on coral"):
        check_placed(integers, "coral")


def test_limits_are_looked_at_and_not_names_alone() -> None:
    flat = of_function(lambda image: {"feature": image[:, 1:]}, 1, 4)
    assert "it slices 3 or 4 dimensions" in reasons(flat, "gpu")["STRIDED_SLICE"]
    deep = of_function(lambda image: {"feature": tf.transpose(image, [0, 4, 2, 3, 1])}, 1, 2, 3, 4, 5)
    assert "4 dimensions at most" in reasons(deep, "gpu")["TRANSPOSE"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", [0, 3, 40, 400])
def test_a_damaged_flatbuffer_is_refused(floats: bytes, target: str, size: int) -> None:
    with pytest.raises(ModelError, match="no whole TFLite flatbuffer"):
        report(floats[:size], target)
