"""A flatbuffer against its test vector, in a child that may crash."""

import sys
from pathlib import Path

import numpy as np
import pytest

from edvit_tf.bundle.vector import Vector, load_vector, save_vector
from edvit_tf.runtime.check import cosine, verify, verify_in_child
from tests.runtime.golden import GOLDEN, SUBMODEL, VECTOR


@pytest.mark.parametrize("name", ["submodel-0.f32", "submodel-1.int8"])
def test_a_right_answer_passes(name: str) -> None:
    verdict = verify_in_child(
        GOLDEN / "submodels" / f"{name}.tflite", GOLDEN / "vectors" / f"{name}.safetensors"
    )
    assert verdict.ok
    assert verdict.reason == ""
    assert verdict.cosine_feature == pytest.approx(1, abs=1e-3)
    assert verdict.cosine_logits == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("part", ["feature", "logits"])
def test_a_wrong_answer_fails_and_says_how_far_it_is(part: str, tmp_path: Path) -> None:
    right = load_vector(VECTOR)
    parts = {"feature": right.feature, "logits": right.logits}
    parts[part] = -parts[part]
    save_vector(tmp_path / "wrong.safetensors", Vector(right.image, **parts))
    verdict = verify(SUBMODEL, tmp_path / "wrong.safetensors")
    assert not verdict.ok
    assert "wrongly (cosine" in verdict.reason
    assert min(verdict.cosine_feature or 0, verdict.cosine_logits or 0) == pytest.approx(-1, abs=1e-3)


def test_a_vector_of_another_model_fails(tmp_path: Path) -> None:
    right = load_vector(VECTOR)
    save_vector(tmp_path / "longer.safetensors", Vector(right.image, np.ones(9, np.float32), right.logits))
    assert "does not belong" in verify(SUBMODEL, tmp_path / "longer.safetensors").reason


def test_answers_that_are_not_finite_fail(tmp_path: Path) -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    content = bytearray(SUBMODEL.read_bytes())
    model = schema.Model.GetRootAs(content, 0)
    sizes = [model.Buffers(index).DataLength() for index in range(model.BuffersLength())]
    weights = model.Buffers(int(np.argmax(sizes))).DataAsNumpy().tobytes()
    start = bytes(content).index(weights)
    content[start : start + len(weights)] = b"\xff" * len(weights)  # a NaN in every place
    (tmp_path / "nan.tflite").write_bytes(content)
    verdict = verify(tmp_path / "nan.tflite", VECTOR)
    assert not verdict.ok
    assert "not finite" in verdict.reason


def test_a_flatbuffer_that_is_cut_off_is_a_verdict_whatever_the_interpreter_does(tmp_path: Path) -> None:
    content = SUBMODEL.read_bytes()
    (tmp_path / "cut.tflite").write_bytes(content[: len(content) // 2])
    verdict = verify_in_child(tmp_path / "cut.tflite", VECTOR)
    assert not verdict.ok
    assert "cannot load" in verdict.reason or "crashed the interpreter" in verdict.reason


def test_a_missing_vector_is_a_verdict(tmp_path: Path) -> None:
    verdict = verify_in_child(SUBMODEL, tmp_path / "nowhere.safetensors")
    assert not verdict.ok
    assert "nowhere.safetensors" in verdict.reason


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kill -SEGV $$", "crashed the interpreter (SIGSEGV)"),
        ("exec sleep 30", "gave no answer to its test vector in 0.5 s"),
        ("echo no such library >&2; exit 1", "could not be checked: no such library"),
    ],
)
def test_a_child_that_fails_is_a_verdict(
    script: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    verdict = verify_in_child(SUBMODEL, VECTOR, timeout=0.5)
    assert not verdict.ok
    assert reason in verdict.reason


def test_cosine() -> None:
    a, b, zero = (np.array(values, np.float32) for values in ([3, 4], [4, -3], [0, 0]))
    assert cosine(a, 7 * a) == pytest.approx(1)
    assert cosine(a, b) == pytest.approx(0)
    assert cosine(zero, zero) == 1
    assert cosine(a, zero) == 0
