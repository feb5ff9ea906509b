"""A bundle for Corals on test pictures: each sub-model as itself or as its student, in every mixture.

    python benchmarks/coral.py BUNDLE --data NAME [--samples N]

The bundle is what `edvit-tf export --format int8,edgetpu --target coral` wrote. A mixture is what a fleet
answers when some groups run on Corals and the others have failed over to Pis. Prints one JSON object a line:
every mixture, what is left without a sub-model, and each student against what it stands for.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np

from edvit_tf.build.data import load_test
from edvit_tf.build.stages import EDGE_TPU
from edvit_tf.bundle.reader import open_bundle
from edvit_tf.runtime.check import cosine
from edvit_tf.runtime.ensemble import BundleModels, accuracy, match_labels
from edvit_tf.vit.config import ImageSize


def main() -> None:
    """Answer once in each kind, then fuse every mixture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--samples", type=int)
    arguments = parser.parse_args()

    bundle = open_bundle(arguments.bundle)
    size = bundle.manifest.input
    image = ImageSize(size.height, size.width, size.channels)
    test, classes = load_test(arguments.data, seed=bundle.manifest.seed, image=image, sound=size.sound)
    labels = match_labels(test.labels, classes, bundle.manifest.classes)[: arguments.samples]
    images = np.asarray(test.images[: arguments.samples])
    models = BundleModels(bundle)
    submodels, students = models.answers(images), BundleModels(bundle, EDGE_TPU).answers(images)
    for count in range(len(models.ids) + 1):
        for chosen in itertools.combinations(models.ids, count):
            mixed = {name: (students if name in chosen else submodels)[name] for name in models.ids}
            row = {
                "students": chosen,
                "accuracy": accuracy(models.fuse(mixed), labels),
                "samples": len(labels),
            }
            print(json.dumps(row), flush=True)
    for absent in models.ids if len(models.ids) > 1 else ():
        for kind, answers in (("sub-models", submodels), ("students", students)):
            rest = {name: answer for name, answer in answers.items() if name != absent}
            reached = accuracy(models.fuse(rest), labels)
            print(json.dumps({"all": kind, "missing": absent, "accuracy": reached}), flush=True)
    for submodel in bundle.manifest.submodels:
        one, other = submodels[submodel.id], students[submodel.id]
        row = {
            "submodel": submodel.id,
            "bytes": submodel.variant().bytes,
            "student_bytes": submodel.variant(EDGE_TPU).bytes,
            "feature_cosine": cosine(other.features, one.features),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
