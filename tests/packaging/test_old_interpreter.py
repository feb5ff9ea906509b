"""What is made today answers rightly in tflite-runtime 2.14, the last interpreter of 32-bit Arm.

The last of its wheels are for Python 3.11 and NumPy 1, so it has an environment of its own.
"""

import subprocess
import sys
import venv
from pathlib import Path

import pytest
from edvit_converters.formats import FORMATS
from edvit_converters.tflite import convert_all, convert_student

from edvit_tf.build.coral import build_student, serving_student, student_of
from edvit_tf.vit.model import read_weights
from tests.converters.models import CONFIGS, PRUNED, random_images, random_vit
from tests.packaging.interpreters import RIGHT, agreement

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.version_info >= (3, 12):
        pytest.skip("tflite-runtime has wheels up to Python 3.11")
    folder = tmp_path_factory.mktemp("old")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "tflite-runtime==2.14.0", "numpy<2"]
    subprocess.run(install, check=True)
    return python


@pytest.mark.parametrize("name", CONFIGS)
def test_the_formats_that_name_it_are_right_there(name: str, old_python: Path, tmp_path: Path) -> None:
    model = random_vit(CONFIGS[name])
    images = random_images(model.config)
    formats = tuple(
        entry.name
        for entry in FORMATS.values()
        if "tflite-runtime" in entry.runtimes and entry.maker != "student"
    )
    assert set(formats) == {"f32", "f16", "int8", "int8-full"}
    found = agreement([old_python], tmp_path, convert_all(model, formats, images), images)
    assert min(found.values()) >= RIGHT, found


def test_a_student_for_a_coral_is_right_there(old_python: Path, tmp_path: Path) -> None:
    config = student_of(PRUNED)
    weights = read_weights(build_student(config))
    images = random_images(PRUNED)
    made = {"edgetpu": convert_student(serving_student(config, weights), config.image, images)}
    assert agreement([old_python], tmp_path, made, images)["edgetpu"] >= RIGHT
