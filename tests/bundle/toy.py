"""A bundle whose flatbuffers are a few made-up bytes: the bundle room never looks into them."""

from pathlib import Path

import numpy as np

from edvit_tf.bundle.manifest import (
    Accuracies,
    Calibration,
    Fusion,
    InputSpec,
    Manifest,
    Single,
    Submodel,
    Teacher,
    TensorSpec,
    Variant,
)
from edvit_tf.bundle.vector import Vector, save_vector
from edvit_tf.bundle.writer import new_bundle, write_manifest

CLASSES = ("Shirt", "Trouser", "Bag", "Ankle boot")
GROUPS = ((0, 3), (1, 2))
FEATURE = 8


def variant(index: int, made_in: str) -> Variant:
    name = f"submodel-{index}.{made_in}"
    return Variant(
        file=f"submodels/{name}.tflite",
        format=made_in,
        target="any",
        runtimes={"ai-edge-litert": "2.3", "tflite-runtime": "2.14"},
        arena_bytes=4096,
        partitions=1,
        operators=("FULLY_CONNECTED", "GELU"),
        inputs=(TensorSpec(name="image", shape=(1, 8, 8, 1), dtype="uint8"),),
        outputs=(
            TensorSpec(name="feature", shape=(1, FEATURE), dtype="float32"),
            TensorSpec(name="logits", shape=(1, 3), dtype="float32"),
        ),
        test_vector=f"vectors/{name}.safetensors",
    )


def make_manifest() -> Manifest:
    """A manifest before any file was hashed."""
    return Manifest(
        name="toy",
        version=3,
        classes=CLASSES,
        input=InputSpec(height=8, width=8, channels=1),
        submodels=tuple(
            Submodel(
                id=f"submodel-{index}",
                classes=tuple(CLASSES[number] for number in group),
                parameters=1000,
                macs=5000,
                energy_weight=1.0,
                variants=(variant(index, "f32"), variant(index, "int8")),
            )
            for index, group in enumerate(GROUPS)
        ),
        fusion=Fusion(
            file="fusion.tflite",
            order=("submodel-1", "submodel-0"),
            calibration=(
                Calibration(missing=0, temperature=1.25),
                Calibration(missing=1, temperature=2.0),
            ),
        ),
        teacher=Teacher(name="toy", parameters=9000, macs=90000, file="baselines/teacher.f32.tflite"),
        single=Single(parameters=1000, macs=5000, file="baselines/single.int8.tflite"),
        accuracies=Accuracies(
            teacher=0.9,
            fused=0.85,
            variants={"submodels/submodel-0.f32.tflite": 0.95},
            missing={"submodel-0": 0.5, "submodel-1": 0.55},
            single=0.7,
        ),
        config={"devices": 2, "sparsity": 0.3, "note": None, "formats": ["f32", "int8"]},
        seed=7,
        made_with={"edvit-tf": "0.1.0"},
    )


def fill(folder: Path, manifest: Manifest) -> None:
    """Every file that the manifest wants, the manifest excepted."""
    generator = np.random.default_rng(5)
    for name in ("submodels", "vectors", "baselines"):
        (folder / name).mkdir()
    for submodel in manifest.submodels:
        for part in submodel.variants:
            (folder / part.file).write_bytes(f"TFL3 {part.file}".encode())
            vector = Vector(
                image=generator.integers(0, 256, (8, 8, 1), dtype=np.uint8),
                feature=generator.standard_normal(FEATURE, dtype=np.float32),
                logits=generator.standard_normal(3, dtype=np.float32),
            )
            save_vector(folder / part.test_vector, vector)
    for name in (
        "fusion.tflite",
        "fusion.safetensors",
        manifest.teacher.file,
        "baselines/single.int8.tflite",
    ):
        (folder / name).write_bytes(f"bytes of {name}".encode())
    (folder / "report.json").write_text("{}")


def write_toy_bundle(out: Path, manifest: Manifest | None = None) -> Path:
    """Write a valid bundle to `out` and return it."""
    manifest = manifest or make_manifest()
    with new_bundle(out) as folder:
        fill(folder, manifest)
        write_manifest(folder, manifest)
    return out
