"""Make `bundle/` and `fusion.json` again: `python -m tests.vectors.make_golden` (needs the extra `export`).

A whole bundle of the real kind, small enough to keep in the repository: a Vision Transformer of 8 × 8 grey
pictures, split over two sub-models, in two formats. Readers in every language are held against it. The
weights are random numbers of a fixed seed: nothing was trained, so the accuracies are those of guessing.
"""

import json
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from edvit_converters.formats import FORMATS
from edvit_converters.tflite import convert_all, convert_fusion
from safetensors.numpy import save_file

from edvit_tf import __version__
from edvit_tf.build.fusion import build_fusion
from edvit_tf.bundle.manifest import (
    Accuracies,
    Calibration,
    Fusion,
    InputSpec,
    Manifest,
    Single,
    Submodel,
    Teacher,
    Variant,
)
from edvit_tf.bundle.reader import open_bundle
from edvit_tf.bundle.vector import Vector, save_vector
from edvit_tf.bundle.writer import new_bundle, write_manifest
from edvit_tf.runtime.fusion import Fusion as FusionModel
from edvit_tf.runtime.interpreter import Flatbuffer
from edvit_tf.vit.checkpoint import Checkpoint
from edvit_tf.vit.config import BlockConfig, ImageSize, ViTConfig, weight_shapes

HERE = Path(__file__).parent
SEED = 11
CLASSES = ("circle", "square", "star", "wave")
GROUPS = (("circle", "star"), ("square", "wave"))
MADE_IN = ("f32", "int8")
GUESSING = 1 / len(CLASSES)
BLOCK = BlockConfig(heads=2, mlp_units=64)  # the converter quantises kernels of 1024 numbers and more
TEACHER = ViTConfig(
    image=ImageSize(height=8, width=8, channels=1),
    patch=4,
    width=32,
    head_size=16,
    blocks=(BLOCK, BLOCK),
    classes=len(CLASSES),
    mean=(127.5,),
    deviation=(60.0,),
)
STUDENT = replace(TEACHER, blocks=(BLOCK,))


def random_array(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Weights f32 that neither blow an answer up nor let it vanish."""
    scale = 1.5 / np.sqrt(np.prod(shape[:-1])) if len(shape) > 1 else 0.3
    return (generator.standard_normal(shape) * scale).astype(np.float32)


def random_vit(config: ViTConfig, labels: tuple[str, ...], generator: np.random.Generator) -> Checkpoint:
    """A Vision Transformer of random weights, large enough that every part of it shows in the answer."""
    weights = {
        name: random_array(shape, generator) + np.float32(name.endswith("/gamma"))
        for name, shape in sorted(weight_shapes(config).items())
    }
    return Checkpoint(config=config, weights=weights, labels=labels)


def write_submodel(
    folder: Path, index: int, picture: np.ndarray, generator: np.random.Generator
) -> tuple[Submodel, np.ndarray]:
    """Write one sub-model in every format with its test vectors; return it and its f32 feature."""
    labels = GROUPS[index]
    config = STUDENT.with_classes(len(labels) + 1)
    flatbuffers = convert_all(random_vit(config, (*labels, "other"), generator), MADE_IN)
    variants = []
    features = []
    for name, data in flatbuffers.items():
        stem = f"submodel-{index}.{name}"
        (folder / "submodels" / f"{stem}.tflite").write_bytes(data)
        model = Flatbuffer(data)
        output = model.run(picture)
        features.append(output.feature)
        save_vector(
            folder / "vectors" / f"{stem}.safetensors", Vector(picture, output.feature, output.logits)
        )
        variants.append(
            Variant(
                file=f"submodels/{stem}.tflite",
                format=name,
                target="any",
                runtimes=FORMATS[name].runtimes,
                arena_bytes=model.arena_bytes(),
                partitions=model.delegate_partitions(),
                operators=model.operators(),
                inputs=model.inputs,
                outputs=model.outputs,
                test_vector=f"vectors/{stem}.safetensors",
            )
        )
    submodel = Submodel(
        id=f"submodel-{index}",
        classes=labels,
        parameters=config.parameters,
        macs=config.macs,
        energy_weight=1.0,
        variants=tuple(variants),
    )
    return submodel, features[0]


def write_fusion(folder: Path, generator: np.random.Generator) -> Fusion:
    """Write the fusion MLP with random weights, as a flatbuffer and as safetensors."""
    model: Any = build_fusion([TEACHER.width] * len(GROUPS), len(CLASSES))
    model.set_weights([random_array(array.shape, generator) for array in model.get_weights()])
    (folder / "fusion.tflite").write_bytes(convert_fusion(model))
    save_file({w.name.partition(":")[0]: w.numpy() for w in model.weights}, folder / "fusion.safetensors")
    return Fusion(
        file="fusion.tflite",
        order=tuple(f"submodel-{index}" for index in range(len(GROUPS))),
        calibration=(Calibration(missing=0, temperature=1.25), Calibration(missing=1, temperature=2.0)),
    )


def write_files(folder: Path) -> dict[str, np.ndarray]:
    """Fill the folder of a bundle and return the sub-models' features of the test picture, by id."""
    generator = np.random.default_rng(SEED)
    for name in ("submodels", "vectors", "baselines"):
        (folder / name).mkdir()
    picture = generator.integers(0, 256, (8, 8, 1), dtype=np.uint8)
    made = [write_submodel(folder, index, picture, generator) for index in range(len(GROUPS))]
    submodels = tuple(submodel for submodel, _ in made)
    teacher = convert_all(random_vit(TEACHER, CLASSES, generator), ("f32",))["f32"]
    (folder / "baselines" / "teacher.f32.tflite").write_bytes(teacher)
    single = convert_all(random_vit(STUDENT, CLASSES, generator), ("int8",))["int8"]
    (folder / "baselines" / "single.int8.tflite").write_bytes(single)
    manifest = Manifest(
        name="golden",
        version=1,
        classes=CLASSES,
        input=InputSpec(height=8, width=8, channels=1, codecs=("raw",)),
        submodels=submodels,
        fusion=write_fusion(folder, generator),
        teacher=Teacher(
            name="golden",
            parameters=TEACHER.parameters,
            macs=TEACHER.macs,
            file="baselines/teacher.f32.tflite",
        ),
        single=Single(parameters=STUDENT.parameters, macs=STUDENT.macs, file="baselines/single.int8.tflite"),
        accuracies=Accuracies(
            teacher=GUESSING,
            fused=GUESSING,
            variants={variant.file: 1 / 3 for submodel in submodels for variant in submodel.variants},
            missing={submodel.id: GUESSING for submodel in submodels},
            single=GUESSING,
        ),
        config={"devices": 2, "format": list(MADE_IN), "made_by": "tests/vectors/make_golden.py"},
        seed=SEED,
        made_with={
            "edvit-tf": __version__,
            **{name: version(name) for name in ("ai-edge-litert", "numpy", "tensorflow")},
        },
    )
    write_manifest(folder, manifest)
    return {submodel.id: feature for submodel, feature in made}


def fusion_cases(bundle: Path, features: dict[str, np.ndarray]) -> dict[str, object]:
    """What the fusion answers to the features of the test picture, with all of them and without each."""
    model = FusionModel(open_bundle(bundle))
    cases = []
    for absent in (None, *features):
        given = {name: feature for name, feature in features.items() if name != absent}
        probabilities = [round(float(number), 6) for number in model.probabilities(given)]
        cases.append({"missing": [absent] if absent else [], "probabilities": probabilities})
    return {
        "features": {name: [float(number) for number in feature] for name, feature in features.items()},
        "cases": cases,
        "tolerance": 1e-4,
    }


def main() -> None:
    """Put a new golden bundle in the place of the old one, if it can be made."""
    fresh, old = HERE / "bundle.new", HERE / "bundle"
    with new_bundle(fresh) as folder:
        features = write_files(folder)
    if old.exists():
        shutil.rmtree(old)
    fresh.rename(old)
    text = json.dumps(fusion_cases(old, features), indent=1) + "\n"
    (HERE / "fusion.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
