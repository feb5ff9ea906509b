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
    assert set(FORMATS) == set(variant["format"]["enum"])
    assert all(name == entry.name for name, entry in FORMATS.items())


def test_only_formats_that_answer_rightly_there_name_the_old_interpreter() -> None:
    old = {name for name, entry in FORMATS.items() if "tflite-runtime" in entry.runtimes}
    assert old == {"f32", "f16", "int8", "int8-full", "edgetpu"}
    assert all("ai-edge-litert" in entry.runtimes for entry in FORMATS.values())


def test_other_formats_are_refused_before_any_work() -> None:
    model = random_vit(UNIFORM)
    for refuse in (
        lambda: find("bfloat"),
        lambda: convert(model, "bfloat"),
        lambda: convert_all(model, ("f32", "bfloat")),
    ):
        with pytest.raises(UsageError, match="There is no format 'bfloat'") as caught:
            refuse()
        assert "f32, f16, int8, int8-dynamic, int4-dynamic" in caught.value.message


def test_what_is_made_of_a_student_is_not_made_of_a_vit() -> None:
    with pytest.raises(UsageError, match="is made of a student that is no ViT: use edvit-tf export"):
        convert(random_vit(UNIFORM), "edgetpu")


def test_a_format_with_fixed_scales_asks_for_pictures() -> None:
    with pytest.raises(UsageError, match="needs pictures to calibrate on") as caught:
        convert(random_vit(UNIFORM), "int8-full")
    assert caught.value.code == "usage.calibration"
