"""One flatbuffer in whichever interpreter is installed here."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edvit_tf.bundle.reader import open_bundle
from edvit_tf.bundle.vector import load_vector
from edvit_tf.errors import ModelError
from edvit_tf.runtime.interpreter import Flatbuffer, runtime_name
from tests.runtime.golden import GOLDEN, SUBMODEL, VECTOR

IMAGE = np.zeros((8, 8, 1), np.uint8)


def test_runs_a_submodel_from_a_file_and_from_bytes() -> None:
    expected = load_vector(VECTOR)
    for source in (SUBMODEL, str(SUBMODEL), SUBMODEL.read_bytes()):
        output = Flatbuffer(source).run(expected.image)
        np.testing.assert_allclose(output.feature, expected.feature, atol=1e-4)
        np.testing.assert_allclose(output.logits, expected.logits, atol=1e-4)


def test_names_the_interpreter_and_its_version() -> None:
    name, _, version = runtime_name().partition("/")
    assert name in ("ai-edge-litert", "tflite-runtime")
    assert version[0].isdigit()


def test_says_what_the_manifest_says_of_it() -> None:
    for submodel in open_bundle(GOLDEN).manifest.submodels:
        for variant in submodel.variants:
            loaded = Flatbuffer(GOLDEN / variant.file)
            assert loaded.inputs == variant.inputs
            assert loaded.outputs == variant.outputs
            assert loaded.operators() == variant.operators
            assert loaded.arena_bytes() == variant.arena_bytes
            if runtime_name().startswith("ai-edge-litert"):
                assert loaded.delegate_partitions() == variant.partitions


def test_counts_the_tensors_that_are_alive_together() -> None:
    fusion = Flatbuffer(GOLDEN / "fusion.tflite")
    inputs = sum(tensor.shape[1] for tensor in fusion.inputs)
    assert (
        fusion.arena_bytes() == 4 * 2 * inputs
    )  # both inputs and their concatenation: no later step has more


def test_an_answer_is_not_overwritten_by_the_next() -> None:
    loaded = Flatbuffer(SUBMODEL)
    first = loaded.run(IMAGE)
    kept = first.feature.copy()
    loaded.run(IMAGE + 255)
    np.testing.assert_array_equal(first.feature, kept)


def test_threads_may_share_one() -> None:
    generator = np.random.default_rng(3)
    images = [generator.integers(0, 256, (8, 8, 1), dtype=np.uint8) for _ in range(200)]
    loaded = Flatbuffer(SUBMODEL)
    alone = [loaded.run(image).logits for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: loaded.run(image).logits, images))
    np.testing.assert_array_equal(alone, together)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"no flatbuffer at all", b"PK\x03\x04 a zip file"])
def test_what_is_no_flatbuffer_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(ModelError, match="is no TFLite flatbuffer") as caught:
            Flatbuffer(source)
        assert caught.value.code == "model.load"


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Cannot read .*nowhere\.tflite"):
        Flatbuffer(tmp_path / "nowhere.tflite")


@pytest.mark.parametrize(
    "image", [IMAGE[1:], IMAGE.astype(np.float32), np.zeros((8, 8, 3), np.uint8), IMAGE[..., 0]]
)
def test_a_picture_that_does_not_fit_is_one_sentence(image: np.ndarray) -> None:
    with pytest.raises(ModelError, match=r"submodel-0\.f32\.tflite could not be run") as caught:
        Flatbuffer(SUBMODEL).run(image)
    assert "\n" not in caught.value.message


def test_another_model_than_a_submodel_is_one_sentence() -> None:
    with pytest.raises(ModelError, match="takes"):
        Flatbuffer(GOLDEN / "fusion.tflite").run(IMAGE)


def test_standard_error_stays_clean_for_what_matters() -> None:
    program = (
        f"import sys; from edvit_tf.runtime.interpreter import Flatbuffer\n"
        f"Flatbuffer({str(SUBMODEL)!r})\n"
        f"print('after', file=sys.stderr)\n"
    )
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert child.stderr == "after\n"
