"""The method against its baselines: accuracy on the test split through the flatbuffers that are deployed.

    python benchmarks/method.py --rows edvit:10:1 single:10:1 [--data fashion_mnist] [--workers 2]

A row is METHOD:DEVICES:SEED. Each is an export, so that every choice is made on validation and a benchmark
that is ended goes on where it stopped; only then is the test split read. Rows go to
docs/results/method-<data>.json, one for each format, and a row that stands there is not made again.

    teacher      the whole model, in f32 and in int8-dynamic
    edvit        our defaults
    edvit_paper  the paper's choices alone: no distillation, no matching, one class's worth of others, and a
                 fusion that never misses a sub-model in training (its score is our stand-in for the paper's)
    single       one student as large as one sub-model, distilled the same way, with at least as many gradient
                 steps as all sub-models together
    logit_sum    the sub-models of edvit without the fusion: a class has its own sub-model's probability
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.data import Split, load, load_test
from edvit_tf.build.export import export
from edvit_tf.build.grouping import rows_of_epoch
from edvit_tf.build.plan import load_teacher, plan_export
from edvit_tf.build.settings import ExportSettings
from edvit_tf.bundle.reader import Bundle, open_bundle
from edvit_tf.cli.progress import bar
from edvit_tf.runtime.calibration import expected_calibration_error
from edvit_tf.runtime.ensemble import Answers, BundleModels, accuracy, balanced_accuracy, run_many
from edvit_tf.runtime.fusion import softmax

RESULTS = Path(__file__).parents[1] / "docs" / "results"
TEACHERS = {"fashion_mnist": "fashion-vit"}
FORMATS = "f32,int8-dynamic,int4-dynamic"
HEADS = {10: 1, 5: 2, 2: 3, 1: 1}
HALF_SUBSETS = 20
SAME_EXPORT = {"logit_sum": "edvit", "teacher": "edvit"}
Probabilities = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the results; accuracies are fractions of the test split, None where they do not apply."""

    data: str
    seed: int
    method: str
    devices: int
    format: str
    accuracy: float
    balanced_accuracy: float
    worst_missing_accuracy: float | None
    half_missing_accuracy: float | None
    ece: float
    bytes_per_device: int
    parameters_per_device: int
    macs_per_device: int
    size_ratio_per_device: float
    parameter_ratio_per_device: float
    seconds: float
    command: str
    commit: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What one METHOD:DEVICES:SEED stands for."""

    data: str
    method: str
    devices: int
    seed: int


def settings_of(asked: Asked, *, folder: Path, workers: int) -> ExportSettings:
    """The export behind a row."""
    base = ExportSettings(
        model=TEACHERS[asked.data],
        data=asked.data,
        devices=asked.devices,
        heads=HEADS[asked.devices],
        out=str(folder / f"{SAME_EXPORT.get(asked.method, asked.method)}-{asked.devices}-{asked.seed}"),
        format=FORMATS,
        seed=asked.seed,
        workers=workers,
    )
    if asked.method == "edvit_paper":
        return replace(base, distillation=0.0, matching=0.0, others=1.0, left_out=0.0)
    if asked.method == "single":
        return replace(base, devices=1, epochs=_epochs_of_single(base))
    return base


def _epochs_of_single(submodels: ExportSettings) -> int:
    """As many passes over all pictures as give the gradient steps of all sub-models together, or more."""
    dataset = load(submodels.data, seed=submodels.seed)
    plan = plan_export(submodels)
    pictures = sum(
        rows_of_epoch(dataset.train.labels, part.group, submodels.others) for part in plan.submodels
    )
    return -(-pictures * submodels.epochs // len(dataset.train))


def rows_of(asked: Asked, *, folder: Path, workers: int) -> Iterator[Row]:
    """Make what is missing, and measure it on the test split."""
    started = time.monotonic()
    settings = settings_of(asked, folder=folder, workers=workers)
    bundle = _bundle(settings)
    seconds = time.monotonic() - started
    test, _ = load_test(asked.data, seed=asked.seed)
    teacher_bytes = bundle.file(bundle.manifest.teacher.file).stat().st_size
    if asked.method == "teacher":
        found: Iterator[tuple[str, Measured, int, int, int]] = _teacher(bundle, test)
    else:
        found = _submodels(asked.method, bundle, test)
    for name, measured, size, parameters, macs in found:
        yield Row(
            data=asked.data,
            seed=asked.seed,
            method=asked.method,
            devices=1 if asked.method == "teacher" else asked.devices,
            format=name,
            **asdict(measured),
            bytes_per_device=size,
            parameters_per_device=parameters,
            macs_per_device=macs,
            size_ratio_per_device=round(teacher_bytes / size, 2),
            parameter_ratio_per_device=round(bundle.manifest.teacher.parameters / parameters, 2),
            seconds=round(seconds, 1),
            command=f"python benchmarks/method.py --data {asked.data} "
            f"--rows {asked.method}:{asked.devices}:{asked.seed}",
            commit=_commit(),
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """Accuracies and calibration on the test split."""

    accuracy: float
    balanced_accuracy: float
    worst_missing_accuracy: float | None
    half_missing_accuracy: float | None
    ece: float


def measure(
    answer: Callable[[tuple[str, ...]], Probabilities],
    names: tuple[str, ...],
    labels: NDArray[np.int64],
    seed: int,
) -> Measured:
    """Measure what answers with probabilities f32 [n, classes] when only some sub-models do."""
    whole = answer(names)
    worst = half = None
    if len(names) > 1:
        worst = min(accuracy(answer(tuple(n for n in names if n != absent)), labels) for absent in names)
        generator = np.random.default_rng(seed)
        kept = len(names) - len(names) // 2
        subsets = [generator.choice(len(names), kept, replace=False) for _ in range(HALF_SUBSETS)]
        half = float(
            np.mean([accuracy(answer(tuple(names[i] for i in sorted(chosen))), labels) for chosen in subsets])
        )
    return Measured(
        accuracy(whole, labels),
        balanced_accuracy(whole, labels),
        worst,
        half,
        expected_calibration_error(whole, labels),
    )


def _submodels(method: str, bundle: Bundle, test: Split) -> Iterator[tuple[str, Measured, int, int, int]]:
    manifest = bundle.manifest
    largest = max(manifest.submodels, key=lambda submodel: submodel.parameters)
    for name in [variant.format for variant in manifest.submodels[0].variants]:
        models = BundleModels(bundle, name)
        answers = models.answers(test.images)
        answer = _answering(method, bundle, models, answers)
        size = max(bundle.file(s.variant(name).file).stat().st_size for s in manifest.submodels)
        yield (
            name,
            measure(answer, models.ids, test.labels, manifest.seed),
            size,
            largest.parameters,
            max(submodel.macs for submodel in manifest.submodels),
        )


def _answering(
    method: str, bundle: Bundle, models: BundleModels, answers: Mapping[str, Answers]
) -> Callable[[tuple[str, ...]], Probabilities]:
    if method == "single":
        return lambda names: softmax(answers[names[0]].logits)
    if method == "logit_sum":
        return lambda names: logit_sum(bundle, {name: answers[name] for name in names})
    return lambda names: models.fuse({name: answers[name] for name in names})


def logit_sum(bundle: Bundle, answers: Mapping[str, Answers]) -> Probabilities:
    """Probabilities without a fusion: a class has what its own sub-model gives it, if that answered."""
    classes = bundle.manifest.classes
    count = len(next(iter(answers.values())).logits)
    summed = np.full((count, len(classes)), 1e-6, np.float32)
    for name, answer in answers.items():
        own = bundle.manifest.submodel(name).classes
        columns = [classes.index(label) for label in own]
        summed[:, columns] += softmax(answer.logits)[:, : len(own)]
    return np.asarray(summed / summed.sum(axis=1, keepdims=True), np.float32)


def _teacher(bundle: Bundle, test: Split) -> Iterator[tuple[str, Measured, int, int, int]]:
    from edvit_converters.tflite import convert

    teacher = bundle.manifest.teacher
    checkpoint = load_teacher(TEACHERS[str(bundle.manifest.config["data"])], bundle.manifest.classes)
    for name in ("f32", "int8-dynamic"):
        flatbuffer = convert(checkpoint, name)
        probabilities = softmax(run_many(flatbuffer, test.images).logits)
        measured = measure(lambda _, p=probabilities: p, ("teacher",), test.labels, 0)  # type: ignore[misc]
        yield name, measured, len(flatbuffer), teacher.parameters, teacher.macs


def _bundle(settings: ExportSettings) -> Bundle:
    from edvit_tf.build.export import STAGES

    if not Path(settings.out).exists():
        with bar(STAGES) as progress:
            export(settings, progress)
    return open_bundle(Path(settings.out))


def _commit() -> str:
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        cwd=RESULTS.parent,
        check=False,
    )
    return answer.stdout.strip() or "unknown"


def read(path: Path) -> list[dict[str, object]]:
    """The rows that are there."""
    return list(json.loads(path.read_text())) if path.exists() else []


def main() -> None:
    """Make the rows asked for, one after the other; each is written as soon as it is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", required=True, metavar="METHOD:DEVICES:SEED")
    parser.add_argument("--data", default="fashion_mnist", choices=sorted(TEACHERS))
    parser.add_argument("--folder", type=Path, default=Path("build/method"), help="for bundles and the cache")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()

    path = RESULTS / f"method-{arguments.data}.json"
    for text in arguments.rows:
        method, devices, seed = text.split(":")
        asked = Asked(arguments.data, method, int(devices), int(seed))
        rows = read(path)
        if any((r["method"], r["devices"], r["seed"]) == (method, asked.devices, asked.seed) for r in rows):
            print(f"{text} is there already", file=sys.stderr)
            continue
        made = [asdict(row) for row in rows_of(asked, folder=arguments.folder, workers=arguments.workers)]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([*rows, *made], indent=1) + "\n")
        for row in made:
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
