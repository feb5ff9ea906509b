"""The whole way through the verbs alone, as a program goes it: train, export, deploy, infer, lose a device.

Three real device processes, real zeroconf, real flatbuffers; few pictures, so that it takes a minute.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edvit_tf.cli.demo_devices import ThrowAwayFleet, device_fleet

CLASSES = ("ring", "bar", "stripe", "corner", "cross", "dot")
SUBMODELS = ["submodel-0", "submodel-1", "submodel-2"]


def draw(label: int, generator: np.random.Generator) -> Image.Image:
    """A grey 28 × 28 picture of a shape that is easy to learn, at a random place in noise."""
    picture = generator.integers(0, 60, (28, 28))
    row, column = generator.integers(6, 22, 2)
    marks = [
        (slice(4, 24, 19), slice(4, 24)),
        (slice(None), slice(column, column + 3)),
        (slice(row, row + 3), slice(None)),
        (slice(0, 10), slice(0, 10)),
        (slice(None, None, 4), slice(None, None, 4)),
        (slice(row - 2, row + 3), slice(column - 2, column + 3)),
    ]
    picture[marks[label]] = 230
    return Image.fromarray(picture.astype(np.uint8))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    generator = np.random.default_rng(5)
    for part, count in (("train", 100), ("test", 12)):
        for label, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                draw(label, generator).save(folder / part / name / f"{index:03}.png")
    return folder


def edvit(*arguments: str | Path, status: int = 0) -> list[Any]:
    """Run a verb with --json; everything on standard output must be JSON, an object a line."""
    command = [sys.executable, "-m", "edvit_tf.cli.main", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def bundle(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    teacher, bundle = folder / "teacher.safetensors", folder / "bundle"
    short = ("--epochs", "8", "--batch", "32")
    edvit("train", "--preset", "fashion-vit", "--data", data, "--out", teacher, *short)
    wanted = ("--devices", "3", "--sparsity", "0.3", "--baselines")
    small = ("--widths", "uniform", "--common-epochs", "4", *short)
    edvit("export", "--model", teacher, "--data", data, "--out", bundle, *wanted, *small)
    return bundle


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThrowAwayFleet]:
    """Three devices that have joined."""
    with device_fleet(["one", "two", "three"], tmp_path_factory.mktemp("devices")) as made:
        yield made


def test_export_says_what_is_in_the_bundle(bundle: Path) -> None:
    (inspected,) = edvit("inspect", bundle)
    assert inspected["verified"] is True
    assert inspected["signed"] is False
    assert [row["format"] for row in inspected["submodels"]] == ["int8"] * 3
    assert all(row["bytes"] == (bundle / row["file"]).stat().st_size for row in inspected["submodels"])
    manifest = inspected["manifest"]
    assert sorted(label for part in manifest["submodels"] for label in part["classes"]) == sorted(CLASSES)
    assert manifest["accuracies"]["split"] == "validation"


def test_evaluate_reads_the_test_split(bundle: Path, data: Path) -> None:
    (result,) = edvit("evaluate", bundle, "--data", data)
    assert result["samples"] == 12 * len(CLASSES)
    assert result["teacher_accuracy"] > 0.5
    assert result["fused_accuracy"] > 0.5
    assert isinstance(result["single_accuracy"], float)
    assert [row["id"] for row in result["missing"]] == SUBMODELS


def test_local_answers_need_no_device(bundle: Path, data: Path) -> None:
    pictures = sorted((data / "test" / "dot").iterdir())[:3]
    answers = edvit("infer", "--local", bundle, *pictures)
    assert [answer["image"] for answer in answers] == [str(picture) for picture in pictures]
    assert all(answer["complete"] and answer["answered"] == answer["expected"] == 3 for answer in answers)
    assert all(abs(sum(answer["probabilities"]) - 1) < 1e-5 for answer in answers)


# Not marked `fleet`: make test-fleet would train and export a second time.
def test_fleet_finds_deploys_answers_loses_and_recovers(
    bundle: Path, data: Path, fleet: ThrowAwayFleet
) -> None:
    state = ("--state", fleet.folder)
    devices = {device.id: device for device in fleet.devices}
    picture = next((data / "test" / "bar").iterdir())
    ours = set(devices)

    (found,) = edvit("fleet", "discover", *state)
    assert {row["id"] for row in found} >= ours
    addresses = [option for device in devices.values() for option in ("--address", device.address)]
    edvit("fleet", "deploy", bundle, *state, *addresses)
    (rows,) = edvit("fleet", "status", *state)
    assert {row["id"]: row["state"] for row in rows} == dict.fromkeys(ours, "up")
    assert sorted(name for row in rows for name in row["submodels"]) == SUBMODELS
    assert all(row["runtime"].startswith(("ai-edge-litert/", "tflite-runtime/")) for row in rows)

    (whole,) = edvit("infer", picture, *state)
    (local,) = edvit("infer", picture, "--local", bundle)
    assert whole["complete"]
    assert whole["probabilities"] == local["probabilities"]

    lost = devices[next(row["id"] for row in rows if row["submodels"] == ["submodel-1"])]
    lost.kill()
    (partial,) = edvit("infer", picture, *state)
    assert (partial["complete"], partial["answered"], partial["expected"]) == (False, 2, 3)
    assert partial["missing"] == ["submodel-1"]
    assert set(partial["weak_classes"]) < set(CLASSES)
    assert partial["milliseconds"] < 2500

    lost.start()
    (again,) = edvit("infer", picture, *state)
    assert again["complete"]
    assert again["probabilities"] == whole["probabilities"]
