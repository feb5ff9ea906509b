"""The mistakes that the first day brings: each is one clear sentence, and nothing is lost or half-written.

Mistakes of the fleet's verbs stand in tests/fleet/test_cli.py, of options in test_train_export.py; a device
with too little memory in tests/fleet/test_deploy.py.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edvit_tf import fleet, zoo
from edvit_tf.bundle.reader import Bundle
from edvit_tf.cli.main import main
from edvit_tf.fleet.keys import make_keys

EXPORT = ("export", "--devices", "2", "--out", "OUT")
SHIPPED = (*EXPORT, "--model", "fashion-vit")


def _pictures(folder: Path, *classes: str, count: int = 4) -> Path:
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            picture = np.full((28, 28), 40 * label + index, np.uint8)
            Image.fromarray(picture).save(folder / name / f"{index}.png")
    return folder


def good_data(folder: Path) -> Path:
    return _pictures(folder, "cat", "dog")


def one_class(folder: Path) -> Path:
    return _pictures(folder, "cat")


def empty_class(folder: Path) -> Path:
    (_pictures(folder, "cat", "dog") / "owl").mkdir()
    return folder


def unreadable_pictures(folder: Path) -> Path:
    for picture in _pictures(folder, "cat", "dog").glob("cat/*.png"):
        picture.write_bytes(b"\x89PNG but not really")
    return folder


def broken_model(path: Path) -> Path:
    path = path.with_suffix(".safetensors")
    shutil.copy(zoo.path("fashion-vit"), path)
    with path.open("r+b") as file:
        file.truncate(1000)
    return path


def missing_model(path: Path) -> Path:
    return path.with_suffix(".safetensors")


def not_keras(path: Path) -> Path:
    path = path.with_suffix(".keras")
    path.write_text("no model")
    return path


def changed_bundle(path: Path) -> Path:
    shutil.copytree(Path(__file__).parents[1] / "vectors" / "bundle", path)
    flatbuffer = path / "submodels" / "submodel-0.int8.tflite"
    data = bytearray(flatbuffer.read_bytes())
    data[len(data) // 2] ^= 1
    flatbuffer.write_bytes(data)
    return path


def text_file(path: Path) -> Path:
    path.write_text("not a bundle")
    return path


MISTAKES: dict[str, tuple[tuple[str, ...], Callable[[Path], Path], int, str]] = {
    "model missing": ((*EXPORT, "--data", "fashion_mnist", "--model", "MADE"), missing_model, 1, "no model"),
    "model broken": (
        (*EXPORT, "--data", "fashion_mnist", "--model", "MADE"),
        broken_model,
        1,
        "not a whole safetensors file",
    ),
    "keras broken": ((*EXPORT, "--data", "fashion_mnist", "--model", "MADE"), not_keras, 1, ".keras"),
    "one class": ((*SHIPPED, "--data", "MADE"), one_class, 1, "two classes"),
    "empty class": ((*SHIPPED, "--data", "MADE"), empty_class, 1, "owl"),
    "other classes": ((*SHIPPED, "--data", "MADE"), good_data, 2, "trained on other classes"),
    "unreadable pictures": (
        ("train", "--preset", "fashion-vit", "--data", "MADE", "--out", "OUT.safetensors"),
        unreadable_pictures,
        1,
        "files cannot be read, the first: ",
    ),
    "too many groups": (
        ("export", "--model", "fashion-vit", "--data", "MADE", "--devices", "3", "--out", "OUT"),
        good_data,
        2,
        "2 classes cannot be split over 3 devices",
    ),
    "changed byte, inspected": (("inspect", "MADE"), changed_bundle, 1, "submodel-0.int8.tflite"),
    "changed byte, deployed": (
        ("fleet", "deploy", "MADE", "--state", "OUT", "--address", "127.0.0.1:9"),
        changed_bundle,
        1,
        "submodel-0.int8.tflite",
    ),
    "changed byte, evaluated": (
        ("evaluate", "MADE", "--data", "fashion_mnist"),
        changed_bundle,
        1,
        "submodel-0.int8.tflite",
    ),
    "unknown codec": (
        ("infer", "--local", "MADE", "x.png", "--wire", "gif"),
        text_file,
        2,
        "one of auto, raw",
    ),
    "quality without a codec": (
        ("infer", "--local", "MADE", "x.png", "--wire-quality", "90"),
        text_file,
        2,
        "needs --wire jpeg",
    ),
    "no bundle": (("inspect", "MADE"), text_file, 1, "bundle"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_sentence_and_nothing_left(
    mistake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, make, status, sentence = MISTAKES[mistake]
    made = make(tmp_path / "made")
    before = sorted(tmp_path.rglob("*"))
    places = {
        "MADE": str(made),
        "OUT": str(tmp_path / "out"),
        "OUT.safetensors": str(tmp_path / "o.safetensors"),
    }
    assert main([*(places.get(part, part) for part in arguments), "--json"]) == status
    written = capsys.readouterr()
    (line,) = written.out.splitlines()
    error = json.loads(line)["error"]
    assert sentence in error["message"]
    assert error["code"]
    assert "\n" not in error["message"]
    assert "Traceback" not in written.err
    assert sorted(tmp_path.rglob("*")) == before


def test_no_device_found(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody(*_: float, **__: int | None) -> list[fleet.Announced]:
        return []

    monkeypatch.setattr(fleet, "discover", nobody)
    make_keys(tmp_path)
    assert main(["fleet", "deploy", str(bundle.path), "--state", str(tmp_path), "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "link.no_device"
    assert "edvit-tf device run" in error["message"]
    assert not list(tmp_path.rglob("*.part"))
