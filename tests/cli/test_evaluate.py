"""`edvit-tf evaluate` on the golden bundle and a folder of pictures; no TensorFlow is needed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edvit_tf.build.data import Split
from edvit_tf.bundle.reader import open_bundle
from edvit_tf.cli.main import main
from edvit_tf.runtime.ensemble import evaluate

GOLDEN = Path(__file__).parents[1] / "vectors" / "bundle"
PICTURES_OF_A_CLASS = 4


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A train and a test folder of random pictures, a folder for each of the golden bundle's classes."""
    generator = np.random.default_rng(2)
    spec = open_bundle(GOLDEN).manifest.input
    for part in ("train", "test"):
        for label in open_bundle(GOLDEN).manifest.classes:
            folder = tmp_path / "data" / part / label
            folder.mkdir(parents=True)
            for index in range(PICTURES_OF_A_CLASS):
                pixels = generator.integers(0, 256, (spec.height, spec.width), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "data"


def test_json_contract(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(GOLDEN), "--data", str(data), "--json"]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    bundle = open_bundle(GOLDEN)
    classes = bundle.manifest.classes
    images, labels = [], []
    for index, label in enumerate(classes):
        for path in sorted((data / "test" / label).iterdir()):
            images.append(np.asarray(Image.open(path))[..., np.newaxis])
            labels.append(index)
    expected = evaluate(bundle, np.stack(images), np.array(labels))
    assert answer == {
        "teacher_accuracy": expected.teacher,
        "single_accuracy": expected.single,
        "fused_accuracy": expected.fused,
        "missing": [{"id": name, "accuracy": value} for name, value in expected.missing.items()],
        "samples": PICTURES_OF_A_CLASS * len(classes),
        "picture_bytes": bundle.manifest.input.height * bundle.manifest.input.width,
    }
    assert "Evaluating golden" in captured.err


def test_a_table_for_people(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(GOLDEN), "--data", str(data), "--samples", "5"]) == 0
    shown = capsys.readouterr().out
    assert "5 pictures" in shown
    for row in ("teacher", "fused", "fused without submodel-1", "single student"):
        assert row in shown


def test_data_with_classes_that_the_bundle_does_not_know(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("train", "test"):
        (data / part / "star").rename(data / part / "spiral")
    assert main(["evaluate", str(GOLDEN), "--data", str(data), "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "data"
    assert "spiral" in error["message"]


def test_a_format_that_the_bundle_does_not_hold(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(GOLDEN), "--data", str(data), "--format", "f16", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "bundle.format"


def test_pictures_as_a_codec_leaves_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, columns = np.mgrid[:8, :8]
    generator = np.random.default_rng(3)
    # Flat but for a corner: even at 8 x 8 pixels the exact WebP is shorter than raw.
    images = np.repeat((200 * (rows + columns < 3)).astype(np.uint8)[np.newaxis, :, :, np.newaxis], 8, axis=0)
    split = Split(images, generator.integers(0, 4, 8))
    classes = open_bundle(GOLDEN).manifest.classes
    monkeypatch.setattr("edvit_tf.build.data.load_test", lambda *_, **__: (split, classes))
    said = {}
    for wire in ("raw", "webp"):
        assert main(["evaluate", str(GOLDEN), "--data", "some", "--wire", wire, "--json"]) == 0
        said[wire] = json.loads(capsys.readouterr().out)
    assert said["webp"].pop("picture_bytes") < said["raw"].pop("picture_bytes") == 64
    assert said["webp"] == said["raw"], "nothing is lost"
    assert main(["evaluate", str(GOLDEN), "--data", "some", "--wire", "auto", "--json"]) == 2
    assert "--wire raw" in json.loads(capsys.readouterr().out)["error"]["message"]
