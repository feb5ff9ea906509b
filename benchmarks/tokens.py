"""Whether cutting tokens pays: students of larger and smaller patches, none with more bytes or MACs.

    python -m benchmarks.tokens [--epochs 60] [--seed 1]

The first is in the shape of the sub-models of `edvit:10` of `benchmarks/method.py`: two blocks, patches of 7
pixels, 16 tokens. The others have smaller patches, as large ones or larger ones, so fewer tokens, and the
widest stream that costs neither more bytes nor more multiply-accumulates than that. Each learns Fashion-MNIST
from labels, from random weights. Prints one JSON object each: accuracy on validation, and milliseconds of its
f32 flatbuffer, measured in turns.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from edvit_converters.tflite import convert

from edvit_tf.build.data import load
from edvit_tf.build.progress import Silent
from edvit_tf.build.teacher import SCHEDULE, TeacherSettings, train_teacher
from edvit_tf.build.widths import TILE, Widths, narrowed
from edvit_tf.runtime.interpreter import Flatbuffer
from edvit_tf.runtime.measure import measure_interleaved
from edvit_tf.vit.config import PRESETS, ViTConfig

PATCHES = (4, 7, 14)
OURS = Widths(blocks=2, heads=2, width=24, mlp_units=56)
ROUNDS = 50


def main() -> None:
    """Train, convert, measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    teacher = PRESETS["fashion-vit"]
    ours = narrowed(teacher, OURS)
    dataset = load("fashion_mnist", seed=arguments.seed, image=teacher.image)
    schedule = replace(SCHEDULE, epochs=arguments.epochs)
    trained = [
        train_teacher(config, dataset, TeacherSettings(arguments.seed, schedule), Silent())
        for config in (ours, *(no_dearer(replace(teacher, patch=patch), ours) for patch in PATCHES))
    ]
    loaded = [Flatbuffer(convert(model, "f32")) for model in trained]
    picture = dataset.validation.images[0]
    tasks = {str(number): (lambda one=one: one.run(picture)) for number, one in enumerate(loaded)}
    times = measure_interleaved(tasks, rounds=ROUNDS)
    for number, model in enumerate(trained):
        config = model.config
        row = {
            "patch": config.patch,
            "tokens": config.patches,
            "blocks": len(config.blocks),
            "heads": config.blocks[0].heads,
            "width": config.width,
            "mlp_units": config.blocks[0].mlp_units,
            "parameters": config.parameters,
            "macs": config.macs,
            "validation_accuracy": model.details["validation_accuracy"],
            "min_ms": round(times[str(number)].min_ms, 4),
        }
        print(json.dumps(row), flush=True)


def no_dearer(config: ViTConfig, than: ViTConfig) -> ViTConfig:
    """The widest, then largest, with no more parameters and no more multiply-accumulates than another."""

    def candidates() -> Iterator[ViTConfig]:
        sizes = product(range(1, OURS.heads + 1), range(TILE, 65, TILE), range(TILE, 257, TILE))
        for heads, width, mlp_units in sizes:
            yield narrowed(config, Widths(OURS.blocks, heads, width, mlp_units))

    fit = (c for c in candidates() if c.parameters <= than.parameters and c.macs <= than.macs)
    return max(fit, key=lambda c: (c.width, c.parameters))


if __name__ == "__main__":
    main()
