"""A bundle of any size in half a minute: real flatbuffers whose weights are random numbers.

python -m benchmarks.random_bundle FOLDER [--side 224] [--patch 32] [--devices 10]
"""

import argparse
from pathlib import Path

import numpy as np
from edvit_converters.formats import find
from edvit_converters.tflite import convert_all, convert_fusion

from edvit_tf.build.fusion import build_fusion
from edvit_tf.bundle.manifest import (
    Accuracies,
    Calibration,
    Fusion,
    InputSpec,
    Manifest,
    Submodel,
    Teacher,
    Variant,
)
from edvit_tf.bundle.vector import Vector, save_vector
from edvit_tf.bundle.writer import new_bundle, write_manifest
from edvit_tf.runtime.interpreter import Flatbuffer
from edvit_tf.vit.checkpoint import Checkpoint, fresh_weights
from edvit_tf.vit.config import BlockConfig, ImageSize, ViTConfig

FORMAT = "int8"
_TEACHER = "baselines/teacher.f32.tflite"


def vit(side: int, patch: int) -> ViTConfig:
    """What a ViT-B leaves for one of ten devices: two of its twelve heads, in colour."""
    return ViTConfig(
        image=ImageSize(side, side, 3),
        patch=patch,
        width=128,
        head_size=64,
        blocks=(BlockConfig(heads=2, mlp_units=512),) * 12,
        classes=2,
    )


def write_random_bundle(place: Path, config: ViTConfig, *, devices: int, seed: int = 1) -> Path:
    """A class and a sub-model for each device; all sub-models are the same, and no accuracy is true."""
    generator = np.random.default_rng(seed)
    image = config.image
    labels = tuple(f"class-{number}" for number in range(devices))
    weights = fresh_weights(config, seed=seed)
    flatbuffer = convert_all(Checkpoint(config, weights, ("one", "other")), (FORMAT,))[FORMAT]
    picture = generator.integers(0, 256, (image.height, image.width, image.channels), dtype=np.uint8)
    model = Flatbuffer(flatbuffer)
    output = model.run(picture)
    with new_bundle(place) as folder:
        for name in ("submodels", "vectors", "baselines"):
            (folder / name).mkdir()
        (folder / _TEACHER).write_bytes(flatbuffer)
        fusion = build_fusion([config.width] * devices, devices)
        (folder / "fusion.tflite").write_bytes(convert_fusion(fusion))
        submodels = []
        for number, label in enumerate(labels):
            stem = f"submodel-{number}.{FORMAT}"
            variant = Variant(
                file=f"submodels/{stem}.tflite",
                format=FORMAT,
                target="any",
                runtimes=find(FORMAT).runtimes,
                arena_bytes=model.arena_bytes(),
                partitions=model.delegate_partitions(),
                operators=model.operators(),
                inputs=model.inputs,
                outputs=model.outputs,
                test_vector=f"vectors/{stem}.safetensors",
            )
            (folder / variant.file).write_bytes(flatbuffer)
            save_vector(folder / variant.test_vector, Vector(picture, output.feature, output.logits))
            submodels.append(
                Submodel(
                    id=f"submodel-{number}",
                    classes=(label,),
                    parameters=config.parameters,
                    macs=config.macs,
                    energy_weight=1.0,
                    variants=(variant,),
                )
            )
        manifest = Manifest(
            name="random",
            version=1,
            classes=labels,
            input=InputSpec(height=image.height, width=image.width, channels=image.channels),
            submodels=tuple(submodels),
            fusion=Fusion(
                file="fusion.tflite",
                order=tuple(submodel.id for submodel in submodels),
                calibration=tuple(
                    Calibration(missing=missing, temperature=1.0) for missing in range(devices)
                ),
            ),
            teacher=Teacher(name="random", parameters=config.parameters, macs=config.macs, file=_TEACHER),
            accuracies=Accuracies(teacher=0.0, fused=0.0, variants={}, missing={}),
            config={"made_by": "benchmarks/random_bundle.py"},
            seed=seed,
            made_with={},
        )
        write_manifest(folder, manifest)
    return place


def main() -> None:
    """Parse and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--patch", type=int, default=32)
    parser.add_argument("--devices", type=int, default=10)
    given = parser.parse_args()
    write_random_bundle(given.folder, vit(given.side, given.patch), devices=given.devices)


if __name__ == "__main__":
    main()
