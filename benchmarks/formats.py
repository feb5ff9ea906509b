"""Every format of the teacher that ships: bytes, how close it stays to Keras, and its time.

    python benchmarks/formats.py [--pictures N] [--rounds N]

Trained weights and real pictures: Fashion-MNIST's validation split, after int4-dynamic and int8-full have
been made with training pictures. Prints one JSON object a line.
"""

import argparse
import json

import numpy as np
from edvit_converters.check import keras_answers
from edvit_converters.formats import FORMATS
from edvit_converters.tflite import convert_all

from edvit_tf import zoo
from edvit_tf.build.data import load as load_data
from edvit_tf.runtime.check import cosine
from edvit_tf.runtime.ensemble import run_many
from edvit_tf.runtime.interpreter import Flatbuffer, runtime_name
from edvit_tf.runtime.measure import measure_interleaved
from edvit_tf.vit.checkpoint import load

CALIBRATION_PICTURES = 1024


def main() -> None:
    """Convert, answer, measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()

    model = load(zoo.path("fashion-vit"))
    data = load_data("fashion_mnist", seed=0, image=model.config.image)
    images = data.validation.images[: arguments.pictures]
    labels = data.validation.labels[: arguments.pictures]
    formats = tuple(name for name, entry in FORMATS.items() if entry.maker != "student")
    calibration = data.train.images[:: len(data.train) // CALIBRATION_PICTURES][:CALIBRATION_PICTURES]
    made = convert_all(model, formats, calibration)
    expected = keras_answers(model, images)
    loaded = {name: Flatbuffer(flatbuffer) for name, flatbuffer in made.items()}

    def task(name: str) -> object:
        return loaded[name].run(images[0])

    tasks = {name: (lambda name=name: task(name)) for name in loaded}
    times = measure_interleaved(tasks, rounds=arguments.rounds)
    for name, flatbuffer in made.items():
        answers = run_many(flatbuffer, images)
        pairs = zip(answers.features, expected.features, strict=True)
        cosines = [cosine(one, other) for one, other in pairs]
        row = {
            "format": name,
            "runtime": runtime_name(),
            "bytes": len(flatbuffer),
            "feature_cosine": cosine(answers.features, expected.features),
            "feature_cosine_first_percentile": float(np.percentile(cosines, 1)),
            "feature_cosine_worst_picture": min(cosines),
            "top1_agreement": float(np.mean(answers.logits.argmax(axis=1) == expected.logits.argmax(axis=1))),
            "accuracy": float(np.mean(answers.logits.argmax(axis=1) == labels)),
            "partitions": loaded[name].delegate_partitions(),
            "min_ms": times[name].min_ms,
            "p50_ms": times[name].p50_ms,
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
