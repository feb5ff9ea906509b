"""The contract: what every format of every sub-model must pass, whatever its shape.

Config round-trip, save and load (safetensors and `.keras`), convert, the interpreter agrees with Keras within
the format's stated tolerance, static shapes, builtin operators only, one signature, few delegate partitions.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from edvit_converters.check import Facts, check, keras_answers
from edvit_converters.formats import FORMATS
from edvit_converters.tflite import convert, convert_all
from numpy.typing import NDArray

from edvit_tf.runtime.ensemble import Answers, run_many
from edvit_tf.runtime.interpreter import Flatbuffer
from edvit_tf.vit.checkpoint import Checkpoint, load, save
from edvit_tf.vit.config import ViTConfig
from edvit_tf.vit.model import from_checkpoint, load_keras
from tests.converters.models import CONFIGS, random_images, random_vit

OF_A_VIT = tuple(name for name, entry in FORMATS.items() if entry.maker != "student")


@dataclass(frozen=True)
class Case:
    """One model in every format, with pictures and what Keras says of them."""

    model: Checkpoint
    flatbuffers: dict[str, bytes]
    images: NDArray[np.uint8]
    expected: Answers

    def facts(self, format_name: str) -> Facts:
        return check(
            self.flatbuffers[format_name],
            format_name,
            self.model.config,
            self.images,
            self.expected,
            trained=False,
        )


@pytest.fixture(scope="module", params=CONFIGS)
def case(request: pytest.FixtureRequest) -> Case:
    model = random_vit(CONFIGS[request.param])
    images = random_images(model.config)
    return Case(model, convert_all(model, OF_A_VIT, calibration=images), images, keras_answers(model, images))


@pytest.fixture(params=OF_A_VIT)
def format_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_config_round_trip(case: Case) -> None:
    assert ViTConfig.from_json(case.model.config.to_json()) == case.model.config


def test_checkpoint_round_trip_gives_the_same_flatbuffer(case: Case, tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", case.model)
    again = convert(
        load(tmp_path / "model.safetensors"), "int4-dynamic", calibration=case.images
    )  # made from f32, so that too is tried
    assert again == case.flatbuffers["int4-dynamic"]


def test_keras_round_trip_answers_the_same(case: Case, tmp_path: Path) -> None:
    from_checkpoint(case.model).save(tmp_path / "model.keras")
    loaded = load_keras(tmp_path / "model.keras")
    assert loaded.config == case.model.config
    np.testing.assert_array_equal(keras_answers(loaded, case.images).logits, case.expected.logits)


def test_the_interpreter_agrees_with_keras(case: Case, format_name: str) -> None:
    facts = case.facts(format_name)
    assert facts.cosine >= FORMATS[format_name].least_cosine
    assert facts.difference <= FORMATS[format_name].largest_difference


def test_every_answer_is_about_its_own_picture(case: Case, format_name: str) -> None:
    answers = run_many(case.flatbuffers[format_name], case.images).features
    centred, truth = (f - f.mean(axis=0) for f in (answers, case.expected.features))
    nearest = (centred @ truth.T / np.linalg.norm(centred, axis=1, keepdims=True)).argmax(axis=1)
    assert np.mean(nearest == np.arange(len(case.images))) >= 0.75


def test_shapes_are_static_and_the_signature_is_ours(case: Case, format_name: str) -> None:
    loaded = Flatbuffer(case.flatbuffers[format_name])
    config = case.model.config
    image = config.image
    assert loaded.static()
    assert loaded.signatures == ("serving_default",)
    assert [(t.name, t.shape, t.dtype) for t in loaded.inputs] == [
        ("image", (1, image.height, image.width, image.channels), "uint8")
    ]
    assert {(t.name, t.shape, t.dtype) for t in loaded.outputs} == {
        ("feature", (1, config.width), "float32"),
        ("logits", (1, config.classes), "float32"),
    }


def test_the_delegate_takes_it_nearly_whole(case: Case, format_name: str) -> None:
    facts = case.facts(format_name)
    assert facts.partitions <= (2 if format_name == "f16" else 1)
    assert {"BATCH_MATMUL", "FULLY_CONNECTED", "GELU"} <= set(facts.operators)


def test_normalisation_costs_nothing(case: Case) -> None:
    operators = set(case.facts("f32").operators)
    assert "CAST" in operators
    assert "DIV" not in operators
    assert len(case.flatbuffers["f32"]) < 4 * case.model.config.parameters * 1.1 + 40_000


def test_nothing_is_left_to_subtract_or_shift_in_a_norm(case: Case) -> None:
    operators = set(case.facts("f32").operators)
    # In front of a stem the picture's mean is subtracted, because of the picture's edge.
    unwanted = {"SQUARED_DIFFERENCE"} if case.model.config.stem else {"SQUARED_DIFFERENCE", "SUB"}
    assert not unwanted & operators


def test_smaller_numbers_make_smaller_files(case: Case) -> None:
    size = {name: len(data) for name, data in case.flatbuffers.items()}
    assert size["f32"] > size["f16"] > max(size["int8"], size["int8-dynamic"])
    assert size["int8-dynamic"] > size["int4-dynamic"]


def test_the_same_weights_give_the_same_bytes(case: Case) -> None:
    assert convert(case.model, "int8") == case.flatbuffers["int8"]
