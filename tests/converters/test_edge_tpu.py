"""The user's compiler: called where it is, and its failures are sentences."""

import os
from pathlib import Path

import pytest
from edvit_converters.edge_tpu import COMPILER, compile_model

from edvit_tf.errors import ModelError


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return tmp_path


def install(folder: Path, script: str) -> None:
    """A stand-in that is called as the compiler is: --show_operations --out_dir FOLDER MODEL."""
    (folder / COMPILER).write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    (folder / COMPILER).chmod(0o755)


@pytest.mark.usefixtures("programs")
def test_without_the_compiler_there_is_nothing_compiled() -> None:
    assert compile_model(b"model") is None


def test_what_the_compiler_writes_is_taken(programs: Path) -> None:
    install(programs, 'printf compiled: > "$3/model_edgetpu.tflite"; cat "$4" >> "$3/model_edgetpu.tflite"')
    assert compile_model(b"model") == b"compiled:model"


def test_what_the_compiler_says_is_passed_on(programs: Path) -> None:
    install(programs, "echo 'Model not quantized' >&2; exit 1")
    with pytest.raises(ModelError, match="edgetpu_compiler failed: Model not quantized"):
        compile_model(b"model")


def test_a_compiler_that_writes_nothing_has_failed(programs: Path) -> None:
    install(programs, "true")
    with pytest.raises(ModelError, match="it said nothing"):
        compile_model(b"model")
