"""Every format of the teacher that ships, in every runtime, and beside it what needs no splitting.

    python benchmarks/formats.py [--pictures N] [--rounds N] [--old-python FILE] [--cnn]

Trained weights and real pictures: Fashion-MNIST's validation split, after int4-dynamic and int8-full have
been made with training pictures. `--old-python` is a Python that has tflite-runtime 2.14 (and NumPy 1), whose
formats are measured in a process of its own, one such process between two halves of the rounds here. `--cnn`
trains a small convolutional network on the labels and measures it in 8-bit integers. Each is the whole model
on one device. Prints one JSON object a line.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from edvit_converters.check import keras_answers
from edvit_converters.formats import FORMATS
from edvit_converters.onnx import sessions
from edvit_converters.tflite import convert_all, convert_student
from numpy.typing import NDArray

from edvit_tf import zoo
from edvit_tf.build.coral import StudentConfig, build_student, serving_student
from edvit_tf.build.data import Dataset
from edvit_tf.build.data import load as load_data
from edvit_tf.build.training import Examples, Schedule, fit, one_hot, steps_of
from edvit_tf.runtime.check import cosine
from edvit_tf.runtime.ensemble import Answers, run_many
from edvit_tf.runtime.interpreter import Flatbuffer, runtime_name
from edvit_tf.runtime.measure import measure_interleaved
from edvit_tf.vit.checkpoint import Checkpoint, load
from edvit_tf.vit.keras import keras
from edvit_tf.vit.model import read_weights

CALIBRATION_PICTURES = 1024
OLD = "tflite-runtime"
CNN = "cnn int8"
CNN_FILTERS, CNN_WIDTH = (16, 32, 64), 32
CNN_SCHEDULE = Schedule(epochs=8, rate=4e-3)

_OLD_SCRIPT = """
import importlib.metadata, json, sys, time
import numpy as np
from tflite_runtime.interpreter import Interpreter
images, rounds, files = np.load(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
runs = {}
for file in files:
    interpreter = Interpreter(file, num_threads=1)
    interpreter.allocate_tensors()
    runs[file] = interpreter.get_signature_runner("serving_default")
times = {file: [] for file in files}
for _ in range(rounds):
    for file, run in runs.items():
        for turn in range(51):
            start = time.perf_counter_ns()
            run(image=images[:1])
            if turn:
                times[file].append((time.perf_counter_ns() - start) / 1e6)
for file, run in runs.items():
    answers = [run(image=image[None]) for image in images]
    outputs = {name: np.concatenate([answer[name] for answer in answers]) for name in ("feature", "logits")}
    np.savez(file + ".npz", **outputs)
print(json.dumps({"version": importlib.metadata.version("tflite-runtime"), "times": times}))
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A model in one format and one runtime: its bytes, what it said of the pictures, and milliseconds."""

    runtime: str
    bytes: int
    answers: Answers
    times: list[float]
    partitions: int | None = None


def main() -> None:
    """Convert, answer, measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--old-python", type=Path)
    parser.add_argument("--cnn", action="store_true")
    arguments = parser.parse_args()

    model = load(zoo.path("fashion-vit"))
    data = load_data("fashion_mnist", seed=0, image=model.config.image)
    images = np.asarray(data.validation.images[: arguments.pictures])
    labels = np.asarray(data.validation.labels[: arguments.pictures])
    formats = tuple(name for name, entry in FORMATS.items() if entry.maker != "student")
    calibration = np.asarray(data.train.images[:: len(data.train) // CALIBRATION_PICTURES])
    made = dict(convert_all(model, formats, calibration[:CALIBRATION_PICTURES]))
    if arguments.cnn:
        made[CNN] = small_cnn(data, calibration[:CALIBRATION_PICTURES])

    with tempfile.TemporaryDirectory(prefix="edvit-tf-") as folder:
        in_onnx = sessions(model, Path(folder), threads=1)
        normal = normalised(model, images)
        loaded = {name: Flatbuffer(flatbuffer) for name, flatbuffer in made.items()}
        tasks: dict[str, Callable[[], object]] = {
            name: partial(one.run, images[0]) for name, one in loaded.items()
        }
        tasks |= {
            f"onnx {name}": partial(one.run, None, {"image": normal[:1]})
            for name, (one, _) in in_onnx.items()
        }
        half = max(1, arguments.rounds // 2)
        print(f"Measuring {len(tasks)} models.", file=sys.stderr, flush=True)
        first = measure_interleaved(tasks, rounds=half)
        old = in_old(arguments.old_python, made, images, half, Path(folder)) if arguments.old_python else {}
        second = measure_interleaved(tasks, rounds=half)
        print("Measured.", file=sys.stderr, flush=True)

    times = {name: [first[name].min_ms, second[name].min_ms] for name in tasks}
    rows: list[tuple[str, Entry]] = [
        (name, Entry(runtime_name(), len(made[name]), run_many(made[name], images), times[name],
                     one.delegate_partitions()))
        for name, one in loaded.items()
    ]  # fmt: skip
    rows += old.items()
    for name, (session, size) in in_onnx.items():
        said = [session.run(None, {"image": picture[np.newaxis]}) for picture in normal]
        answers = Answers(np.stack([one[0][0, 0] for one in said]), np.stack([one[1][0, 0] for one in said]))
        rows.append((f"onnx {name}", Entry(onnx_name(), size, answers, times[f"onnx {name}"])))
    expected = keras_answers(model, images)
    for name, entry in rows:
        print(json.dumps(described(name, entry, None if name == CNN else expected, labels)), flush=True)


def described(
    name: str, entry: Entry, expected: Answers | None, labels: NDArray[np.int64]
) -> dict[str, object]:
    """A row: `expected` is what Keras says of the same model, where it is that one."""
    chosen = entry.answers.logits.argmax(axis=1)
    row: dict[str, object] = {
        "format": name,
        "runtime": entry.runtime,
        "bytes": entry.bytes,
        "accuracy": float(np.mean(chosen == labels)),
        "partitions": entry.partitions,
        "min_ms": min(entry.times),
    }
    if expected is not None:
        pairs = zip(entry.answers.features, expected.features, strict=True)
        cosines = [cosine(one, other) for one, other in pairs]
        row |= {
            "feature_cosine": cosine(entry.answers.features, expected.features),
            "feature_cosine_first_percentile": float(np.percentile(cosines, 1)),
            "feature_cosine_worst_picture": min(cosines),
            "top1_agreement": float(np.mean(chosen == expected.logits.argmax(axis=1))),
        }
    return row


def in_old(
    python: Path, made: Mapping[str, bytes], images: NDArray[np.uint8], rounds: int, folder: Path
) -> dict[str, Entry]:
    """The formats that are right in tflite-runtime 2.14, there."""
    np.save(folder / "images.npy", images)
    files = {
        name: folder / f"{name}.tflite"
        for name in made
        if OLD in FORMATS["edgetpu" if name == CNN else name].runtimes
    }
    for name, file in files.items():
        file.write_bytes(made[name])
    command: list[str | Path] = [
        python,
        "-c",
        _OLD_SCRIPT,
        folder / "images.npy",
        str(rounds),
        *files.values(),
    ]
    said = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    found = {}
    for name, file in files.items():
        outputs = np.load(f"{file}.npz")
        answers = Answers(outputs["feature"], outputs["logits"])
        found[name] = Entry(f"{OLD}/{said['version']}", len(made[name]), answers, said["times"][str(file)])
    return found


def onnx_name() -> str:
    """The runtime and its version."""
    import onnxruntime

    return f"onnxruntime/{onnxruntime.__version__}"


def normalised(model: Checkpoint, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The pictures as the ONNX graph takes them, f32 [n, c, h, w]."""
    mean, deviation = (np.asarray(part, np.float32) for part in (model.config.mean, model.config.deviation))
    return ((images - mean) / deviation).astype(np.float32).transpose(0, 3, 1, 2)


def small_cnn(data: Dataset, calibration: NDArray[np.uint8]) -> bytes:
    """Three convolutions trained on the labels alone, in 8-bit integers."""
    image = load(zoo.path("fashion-vit")).config.image
    config = StudentConfig(image, CNN_FILTERS, CNN_WIDTH, len(data.classes))
    keras.utils.set_random_seed(0)
    model = build_student(config)
    targets = one_hot(np.asarray(data.train.labels), len(data.classes))[:, np.newaxis]
    examples = Examples(np.asarray(data.train.images), targets, shift=1)
    fit(
        model,
        examples.batches(CNN_SCHEDULE.batch),
        steps_of(len(examples), CNN_SCHEDULE.batch),
        CNN_SCHEDULE,
        seed=0,
    )
    return convert_student(serving_student(config, read_weights(model)), config.image, calibration)


if __name__ == "__main__":
    main()
