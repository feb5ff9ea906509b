"""The table of formats is closed."""

import json
from importlib import resources

import pytest
from edvit_converters.formats import FORMATS, find
from edvit_converters.tflite import convert, convert_all

from edvit_tf.errors import UsageError
from tests.converters.models import UNIFORM, random_vit


def test_every_format_is_one_the_manifest_knows() -> None:
    schema = json.loads(resources.files("edvit_tf.bundle").joinpath("manifest.schema.json").read_text())
    variant = schema["definitions"]["variant"]["properties"]
    assert set(FORMATS) | {"edgetpu"} == set(variant["format"]["enum"])
    assert all(name == entry.name for name, entry in FORMATS.items())


def test_only_formats_that_answer_rightly_there_name_the_old_interpreter() -> None:
    old = {name for name, entry in FORMATS.items() if "tflite-runtime" in entry.runtimes}
    assert old == {"f32", "f16", "int8", "int8-full"}
    assert all("ai-edge-litert" in entry.runtimes for entry in FORMATS.values())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("edgetpu", "cannot be made yet"),
        ("bfloat", "There is no format 'bfloat'"),
    ],
)
def test_other_formats_are_refused_before_any_work(name: str, message: str) -> None:
    model = random_vit(UNIFORM)
    for refuse in (
        lambda: find(name),
        lambda: convert(model, name),
        lambda: convert_all(model, ("f32", name)),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            refuse()
        assert "f32, f16, int8, int8-dynamic, int4-dynamic" in caught.value.message


def test_a_format_with_fixed_scales_asks_for_pictures() -> None:
    with pytest.raises(UsageError, match="needs pictures to calibrate on") as caught:
        convert(random_vit(UNIFORM), "int8-full")
    assert caught.value.code == "usage.calibration"
