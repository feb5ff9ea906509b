"""The door to TensorFlow says what to install when TensorFlow is not there."""

import os
import runpy
import sys
from pathlib import Path

import pytest

import edvit_tf.vit
from edvit_tf.errors import MissingPackage
from edvit_tf.vit.keras import keras

DOOR = Path(edvit_tf.vit.__file__).with_name("keras.py")


@pytest.mark.parametrize("package", ["tensorflow", "tf_keras"])
def test_a_missing_package_is_one_sentence(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackage, match=rf"needs {package}.*edvit-tf\[export\]"):
        runpy.run_path(str(DOOR))


def test_keras_is_keras_2() -> None:
    assert keras.__version__.startswith("2.")
    assert os.environ["TF_USE_LEGACY_KERAS"] == "1"
