"""What sending pictures through a codec costs a model in accuracy, at its own size.

    python -m benchmarks.wire_accuracy MODEL.safetensors --data cifar10

Every picture of the validation and of the test split goes through each coding, as a device would decode it.
A coding is to be chosen by validation; the test split is for the report. Prints one JSON object a coding:
mean bytes of a picture, accuracy, the difference to raw in points with its standard error (of paired
pictures), and the share of answers that are others.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.data import load, load_test
from edvit_tf.build.data.dataset import Split
from edvit_tf.build.training import Forward
from edvit_tf.rpc.codecs import EXACT, JPEG, WEBP, Coding, round_trip
from edvit_tf.vit.checkpoint import load as load_checkpoint
from edvit_tf.vit.model import from_checkpoint

CODINGS = (
    EXACT,
    Coding(WEBP),
    *(Coding(JPEG, quality) for quality in (85, 90, 95, 98)),
    *(Coding(WEBP, quality) for quality in (85, 95, 100)),
)


def measure(forward: Forward, split: Split, coding: Coding, raw: NDArray[np.int64]) -> dict[str, float]:
    """Figures of one split; `raw` is what the model says of the pictures as they are, [n]."""
    images, size = round_trip(np.asarray(split.images), coding)
    said = forward(images)["logits"].argmax(axis=1)
    right, before = said == split.labels, raw == split.labels
    change = 100 * (right.astype(float) - before)
    return {
        "bytes": round(size),
        "accuracy": round(100 * float(right.mean()), 2),
        "points": round(float(change.mean()), 2),
        "error": round(float(change.std() / np.sqrt(len(change))), 2),
        "other_answers": round(float((said != raw).mean()), 4),
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True)
    given = parser.parse_args()
    checkpoint = load_checkpoint(given.model)
    image = checkpoint.config.image
    # The training's: it says which pictures were held out.
    seed = int(str(checkpoint.details.get("seed", 0)))
    splits = {
        "validation": load(given.data, seed=seed, image=image).validation,
        "test": load_test(given.data, seed=seed, image=image)[0],
    }
    forward = Forward(from_checkpoint(checkpoint))
    raw = {name: forward(split.images)["logits"].argmax(axis=1) for name, split in splits.items()}
    for coding in CODINGS:
        rows = {name: measure(forward, split, coding, raw[name]) for name, split in splits.items()}
        print(json.dumps({"coding": str(coding), **rows}), flush=True)


if __name__ == "__main__":
    main()
