"""What is made here answers the same on Arm, 64 and 32 bits: the boards' own wheels, run by QEMU."""

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
from edvit_converters.formats import FORMATS
from edvit_converters.tflite import convert_all, convert_student
from numpy.typing import NDArray

from edvit_tf.build.coral import build_student, serving_student, student_of
from edvit_tf.vit.model import read_weights
from tests.converters.models import PRUNED, random_images, random_vit
from tests.packaging.foreign import PI_4, PI_5, PI_32, Debian, Machine
from tests.packaging.interpreters import RIGHT, agreement

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

OLD, NEW = "tflite-runtime", "ai-edge-litert"


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Debian:
    return Debian(tmp_path_factory.mktemp("debian"))


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return random_images(PRUNED)[:4]


@pytest.fixture(scope="module")
def made(images: NDArray[np.uint8]) -> dict[str, bytes]:
    """A pruned ViT in every format, and a student for a Coral."""
    formats = tuple(entry.name for entry in FORMATS.values() if entry.maker != "student")
    config = student_of(PRUNED)
    student = serving_student(config, read_weights(build_student(config)))
    flatbuffers = convert_all(random_vit(PRUNED), formats, random_images(PRUNED))
    return {**flatbuffers, "edgetpu": convert_student(student, config.image, images)}


@pytest.mark.parametrize(
    ("machine", "interpreter"),
    [
        pytest.param(PI_4, NEW, id="pi-4"),
        pytest.param(PI_5, NEW, id="pi-5"),
        pytest.param(PI_4, OLD, id="pi-4-old"),
        pytest.param(PI_32, OLD, id="pi-32-bit"),
    ],
)
def test_the_formats_that_name_it_are_right_there(
    machine: Machine,
    interpreter: str,
    debian: Debian,
    made: dict[str, bytes],
    images: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    version = "2.14.0" if interpreter == OLD else importlib.metadata.version(NEW)
    python = debian.python(machine, interpreter, version)
    named = {name: made[name] for name, entry in FORMATS.items() if interpreter in entry.runtimes}
    assert {"f32", "int8", "edgetpu"} < named.keys()
    assert ("int4-dynamic" in named) == (interpreter == NEW)
    found = agreement(python, tmp_path, named, images)
    assert min(found.values()) >= RIGHT, found
