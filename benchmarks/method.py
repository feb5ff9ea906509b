"""The method against its baselines: accuracy on the test split through the flatbuffers that are deployed.

    python -m benchmarks.method --rows edvit:10:1 single:10:1 [--data fashion_mnist] [--workers 2]

A row is METHOD:DEVICES:SEED. Each is an export, so that every choice is made on validation and a benchmark
that is ended goes on where it stopped; only then is the test split read. Rows go to
docs/results/method-<data>.json, one for each format, and a row that stands there is not made again. Page and
figure beside it are written anew (page.py).

    teacher            the whole model in f32
    teacher_int8       the same in int8-dynamic
    edvit              our defaults, in the shape that learns most (SHAPES: what --widths tried chose once);
                       pictures are moved by what suits the sub-models' size (SHIFTS), and epochs suit the
                       data (EPOCHS)
    edvit_paper        the paper's choices alone: all blocks and uniform widths, its score, each sub-model
                       cut from the teacher, no distillation, one class's worth of others, and a fusion that
                       never misses a sub-model in training; retrained for longer, so that as many pictures
                       are seen as in ours
    single             one student as large as one sub-model, in the shape that learns most, distilled the
                       same way, with at least as many gradient steps as all sub-models together
    single_uniform     the same with all blocks and uniform widths
    single_total       the same for one student at least as large as all sub-models together
    single_cnn         one convolutional network (cnn.py) whose f32 flatbuffer is no larger than a sub-model,
                       distilled the same way, with as many gradient steps as single
    cnn_split          a convolutional network for each group of edvit, no larger than a sub-model, its
                       filters pruned from a convolutional teacher that is trained here, distilled from it,
                       and under the same fusion: the side of EC-SNN that does not spike
    cnn_teacher        that teacher
    random_init        edvit with sub-models that start from random weights: what does pruning buy?
    logit_sum          the sub-models of edvit without the fusion: a class has its own sub-model's probability

and edvit with one choice changed, in the same shape unless that is what changes; where it makes training
shorter, retraining is longer instead:

    edvit_kl           units scored exactly, one removed at a time
    edvit_uniform      all blocks, and the same share of each layer's units: the paper's widths
    edvit_bytes, edvit_latency
                       widths of each layer, for the bytes of the uniform ones, or for their milliseconds on
                       this machine
    edvit_alike, edvit_apart
                       groups of classes that the teacher confuses, or of such that it does not
    edvit_randaugment, edvit_mixup, edvit_cutmix
                       that augmentation in retraining
    edvit_undistilled  labels alone
    edvit_matched      the class token is matched with the teacher's
    edvit_few_others   one class's worth of out-of-group pictures
    edvit_cooled       sub-models branch from the common student when its rate has fallen to zero
    edvit_no_common    each sub-model is cut from the teacher for its group, its class token matched
    edvit_sparse, edvit_two_of_four
                       TF-MOT's zeros: half of each kernel, or two in each four
    edvit_qat          the last epochs of retraining with the numbers of int8-full rounded
    edvit_all_there    a fusion that never misses a sub-model in training
    edvit_unbalanced   as if all classes had as many pictures; for a long tail
    edvit_stem         another teacher, that of Fashion-MNIST with a convolutional stem
    single_stem        single of that teacher

Rows of `edvit_refined` and `edvit_refined_uniform` are of a step that was left since, see decision 0015: they
can be made at the commit that they name.
"""

import argparse
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.page import RESULTS, pack, read, rows_file, slug
from benchmarks.page import write as write_page
from edvit_tf.build.data import Split, load, load_test
from edvit_tf.build.export import STAGES, export
from edvit_tf.build.grouping import rows_of_epoch
from edvit_tf.build.plan import load_teacher, plan_export
from edvit_tf.build.settings import ExportSettings
from edvit_tf.build.widths import narrowed, uniform
from edvit_tf.bundle.reader import Bundle, open_bundle
from edvit_tf.cli.progress import bar
from edvit_tf.errors import UsageError
from edvit_tf.runtime.calibration import expected_calibration_error
from edvit_tf.runtime.ensemble import Answers, BundleModels, accuracy, balanced_accuracy, run_many
from edvit_tf.runtime.fusion import softmax
from edvit_tf.vit.checkpoint import write_whole
from edvit_tf.vit.config import ImageSize

TEACHERS = {
    "fashion_mnist": "fashion-vit",
    "cifar10": "cifar-vit",
    "cifar10?long-tail=50": str(Path(__file__).parent / "teachers" / "cifar-vit-long-tail.safetensors"),
}
FORMATS = "f32,int8-dynamic,int4-dynamic,int8-full"
"""Rows of before `edvit_qat` lack the last."""
WITHOUT_INT4 = "f32,int8-dynamic"
"""Of what no bar asks int4 of: convolutional networks, one student, sub-models that hardly saw other groups.
Where features stray too far it is refused, as of the last, and of one student of CIFAR-10."""
HEADS = {10: 1, 5: 2, 2: 3, 1: 1}
SHIFTS: Mapping[str, Mapping[int, int]] = {"fashion_mnist": {10: 0, 5: 0}}
"""Pixels that pictures are moved by, where it is not the default: small sub-models have no room for more."""
EPOCHS: Mapping[str, Mapping[int, tuple[int, int]]] = {
    "fashion_mnist": {10: (50, 12), 5: (25, 11), 2: (14, 7)},
    "cifar10": {10: (90, 20)},
    "cifar10?long-tail=50": {10: (120, 24)},
}
"""Of the common student and of each sub-model, about as many pictures for the one as for all the others
together; longer where they know little after the default's epochs, or where an epoch has few pictures."""
SHAPES: Mapping[str, Mapping[tuple[str, int], str]] = {
    "fashion_mnist": {
        ("edvit", 10): "2x2x24x56", ("edvit", 5): "2x4x64x48", ("edvit", 2): "4x4x64x80",
        ("single", 10): "3x2x24x16", ("single", 5): "3x3x48x64", ("single", 2): "3x4x64x152",
    },
    "cifar10": {("edvit", 10): "2x2x24x24x16x24", ("single", 10): "2x2x24x24x16x24"},
}  # fmt: skip
"""What `--widths tried` chose with seed 1, on validation. Trials take most of a row's time; and where rows
are to differ in one choice, the shape must not be a second one."""
OF_DATA: Mapping[str, Mapping[str, object]] = {"cifar10?long-tail=50": {"widths": "uniform"}}
"""Where two epochs teach a student nothing (10 to 13 % of the tail's validation), a trial of shapes says
nothing either."""
STEM: Mapping[str, object] = {"model": "fashion-stem-vit", "widths": "2x2x24x24x16x24", "heads": None}
"""A teacher with a convolutional stem, and the shape that trials chose for such a one of CIFAR-10."""
HALF_SUBSETS = 20
CNN = ("single_cnn", "cnn_split", "cnn_teacher")
CHANGES: Mapping[str, Mapping[str, object]] = {
    "edvit_paper": {
        "widths": "uniform", "importance": "kl", "distillation": 0.0, "others": 1.0, "common_epochs": 0,
        "left_out": 0.0,
    },
    "edvit_kl": {"importance": "kl"},
    "edvit_uniform": {"widths": "uniform"},
    "edvit_bytes": {"widths": "bytes"},
    "edvit_latency": {"widths": "latency"},
    "edvit_alike": {"groups": "alike"},
    "edvit_apart": {"groups": "apart"},
    "edvit_randaugment": {"augment": "randaugment"},
    "edvit_mixup": {"augment": "mixup"},
    "edvit_cutmix": {"augment": "cutmix"},
    "edvit_undistilled": {"distillation": 0.0},
    "edvit_matched": {"matching": 1.0},
    "edvit_few_others": {"others": 1.0, "format": WITHOUT_INT4},
    "edvit_cooled": {"common_cooled": True},
    "edvit_no_common": {"common_epochs": 0, "matching": 1.0},
    "edvit_sparse": {"sparsity": 0.5},
    "edvit_two_of_four": {"sparsity": "2:4"},
    "edvit_qat": {"qat_epochs": 4},
    "edvit_all_there": {"left_out": 0.0},
    "edvit_unbalanced": {"balance": False},
    "edvit_stem": STEM,
    "random_init": {"start": "random"},
}  # fmt: skip
TEACHER_FORMAT = {"teacher": "f32", "teacher_int8": "int8-dynamic"}
SAME_EXPORT = dict.fromkeys(("logit_sum", *TEACHER_FORMAT, *CNN), "edvit")
Probabilities = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the results; accuracies are fractions of the test split, None where they do not apply.

    `log_loss` is the mean of -log p of the true class, in nats; rows of before it was measured lack it.
    `right` tells of every test picture whether it was classified rightly, as `page.pack` writes it.
    `seconds` are of the run that wrote the row: less than the work where the cache had some of it already.
    """

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
    log_loss: float
    right: str
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
    """The export behind a row; every data set has a folder of its own, with its cache."""
    name = SAME_EXPORT.get(asked.method, asked.method)
    base = ExportSettings(
        model=TEACHERS[asked.data],
        data=asked.data,
        devices=asked.devices,
        heads=HEADS[asked.devices],
        widths="tried",
        out=str(folder / slug(asked.data) / f"{name}-{asked.devices}-{asked.seed}"),
        format=FORMATS,
        seed=asked.seed,
        workers=workers,
    )
    common, alone = EPOCHS.get(asked.data, {}).get(asked.devices, (base.common_epochs, base.epochs))
    base = replace(
        base,
        common_epochs=common,
        epochs=alone,
        shift=SHIFTS.get(asked.data, {}).get(asked.devices, base.shift),
        **OF_DATA.get(asked.data, {}),  # type: ignore[arg-type]
    )
    if asked.method in CHANGES:
        change = CHANGES[asked.method]
        same = base if "widths" in change else _in_shape(base, asked, "edvit")
        return _as_long(base, replace(same, **change))  # type: ignore[arg-type]
    if asked.method.startswith("single") and asked.method not in CNN:
        student = replace(
            base, devices=1, format=WITHOUT_INT4, common_epochs=0, epochs=_epochs_of_single(base)
        )
        if asked.method == "single_total":
            return replace(student, heads=_heads_of_total(base), widths="uniform")
        if asked.method == "single_uniform":
            return replace(student, widths="uniform")
        if asked.method == "single_stem":
            return replace(student, **STEM)  # type: ignore[arg-type]
        return _in_shape(student, asked, "single")
    return _in_shape(base, asked, "edvit")


def _in_shape(settings: ExportSettings, asked: Asked, method: str) -> ExportSettings:
    """The settings in the shape that was chosen for this method, where one was."""
    shape = SHAPES.get(asked.data, {}).get((method, asked.devices))
    return settings if shape is None else replace(settings, widths=shape, heads=None)


def _as_long(base: ExportSettings, changed: ExportSettings) -> ExportSettings:
    """The changed export, retrained until all its stages have seen the pictures of the base, or more."""
    left = _pictures(base) - _pictures_of_common(changed)
    later = changed.qat_epochs + (changed.sparsity_epochs if changed.sparsity else 0)
    return replace(changed, epochs=max(1, -(-left // sum(_rows_alone(changed))) - later))


def _epochs_of_single(submodels: ExportSettings) -> int:
    """As many passes over all pictures as give the gradient steps of the whole export, or more."""
    return -(-_pictures(submodels) // len(load(submodels.data, seed=submodels.seed).train))


def _pictures(settings: ExportSettings) -> int:
    """Pictures that the common student and all sub-models see in training; each counts what it sees."""
    return _pictures_of_common(settings) + settings.epochs * sum(_rows_alone(settings))


def _rows_alone(settings: ExportSettings) -> list[int]:
    """Pictures of an epoch of each sub-model's retraining."""
    labels = load(settings.data, seed=settings.seed).train.labels
    return [rows_of_epoch(labels, part.group, settings.others) for part in plan_export(settings).submodels]


def _pictures_of_common(settings: ExportSettings) -> int:
    return settings.common_epochs * len(load(settings.data, seed=settings.seed).train)


def _heads_of_total(submodels: ExportSettings) -> int:
    """The fewest heads with which one student is as large as all sub-models together, or larger."""
    plan = plan_export(submodels)
    total = sum(part.config.f32_bytes for part in plan.submodels)
    most = plan.config.blocks[0].heads
    sizes = {heads: narrowed(plan.config, uniform(plan.config, heads)) for heads in range(1, most + 1)}
    return next((heads for heads, config in sizes.items() if config.f32_bytes >= total), most)


def rows_of(asked: Asked, *, folder: Path, workers: int) -> Iterator[Row]:
    """Make what is missing, and measure it on the test split."""
    started = time.monotonic()
    settings = settings_of(asked, folder=folder, workers=workers)
    bundle = bundle_of(settings)
    spec = bundle.manifest.input
    image = ImageSize(spec.height, spec.width, spec.channels)
    test, _ = load_test(asked.data, seed=asked.seed, image=image)
    teacher_bytes = bundle.file(bundle.manifest.teacher.file).stat().st_size
    if asked.method in TEACHER_FORMAT:
        found = _teacher(bundle, test, TEACHER_FORMAT[asked.method])
    elif asked.method in CNN:
        found = _networks(asked.method, bundle, settings, test)
    else:
        found = _submodels(asked.method, bundle, test)
    whole = asked.method in (*TEACHER_FORMAT, "cnn_teacher")
    for made in found:
        yield Row(
            data=asked.data,
            seed=asked.seed,
            method=asked.method,
            devices=1 if whole else asked.devices,
            format=made.format,
            **asdict(made.measured),
            bytes_per_device=made.bytes,
            parameters_per_device=made.parameters,
            macs_per_device=made.macs,
            size_ratio_per_device=round(teacher_bytes / made.bytes, 2),
            parameter_ratio_per_device=round(bundle.manifest.teacher.parameters / made.parameters, 2),
            seconds=round(time.monotonic() - started, 1),
            command=f"python -m benchmarks.method --data {asked.data} "
            f"--rows {asked.method}:{asked.devices}:{asked.seed}",
            commit=_commit(),
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """Of the test split: accuracies, calibration, `log_loss` in nats; `right` picture by picture."""

    accuracy: float
    balanced_accuracy: float
    worst_missing_accuracy: float | None
    half_missing_accuracy: float | None
    ece: float
    log_loss: float
    right: str


@dataclass(frozen=True, slots=True)
class Made:
    """What a row says of a method in one format; sizes are of the largest part."""

    format: str
    measured: Measured
    bytes: int
    parameters: int
    macs: int


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
        log_loss(whole, labels),
        pack(whole.argmax(axis=1) == labels),
    )


def log_loss(probabilities: Probabilities, labels: NDArray[np.int64]) -> float:
    """The mean of -log p of the true class, in nats; no probability counts as less than 1e-9."""
    of_truth = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(of_truth, 1e-9)).mean())


def _submodels(method: str, bundle: Bundle, test: Split) -> Iterator[Made]:
    manifest = bundle.manifest
    largest = max(manifest.submodels, key=lambda submodel: submodel.parameters)
    for name in [variant.format for variant in manifest.submodels[0].variants]:
        models = BundleModels(bundle, name)
        answers = models.answers(test.images)
        answer = _answering(method, bundle, models, answers)
        size = max(bundle.file(s.variant(name).file).stat().st_size for s in manifest.submodels)
        yield Made(
            name,
            measure(answer, models.ids, test.labels, manifest.seed),
            size,
            largest.parameters,
            max(submodel.macs for submodel in manifest.submodels),
        )


def _answering(
    method: str, bundle: Bundle, models: BundleModels, answers: Mapping[str, Answers]
) -> Callable[[tuple[str, ...]], Probabilities]:
    if method.startswith("single"):
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


def _networks(method: str, bundle: Bundle, settings: ExportSettings, test: Split) -> Iterator[Made]:
    from benchmarks.cnn_jobs import train_networks

    manifest = bundle.manifest
    groups = [
        tuple(manifest.classes.index(label) for label in submodel.classes) for submodel in manifest.submodels
    ]
    size = max(bundle.file(s.variant("f32").file).stat().st_size for s in manifest.submodels)
    with bar(STAGES) as progress:
        made = train_networks(
            method,
            _as_long(settings, replace(settings, format=WITHOUT_INT4, common_epochs=0)),
            groups=groups,
            most_bytes=size,
            single_epochs=_epochs_of_single(settings),
            progress=progress,
        )
    for name in WITHOUT_INT4.split(","):
        answers = made.answers(test.images, name)
        yield Made(
            name,
            measure(partial(made.probabilities, answers), made.names, test.labels, manifest.seed),
            max(part.flatbuffers[name].stat().st_size for part in made.parts),
            max(part.parameters for part in made.parts),
            max(part.macs for part in made.parts),
        )


def _teacher(bundle: Bundle, test: Split, format_name: str) -> Iterator[Made]:
    from edvit_converters.tflite import convert

    teacher = bundle.manifest.teacher
    checkpoint = load_teacher(TEACHERS[str(bundle.manifest.config["data"])], bundle.manifest.classes)
    flatbuffer = convert(checkpoint, format_name)
    probabilities = softmax(run_many(flatbuffer, test.images).logits)
    measured = measure(lambda _: probabilities, ("teacher",), test.labels, 0)
    yield Made(format_name, measured, len(flatbuffer), teacher.parameters, teacher.macs)


def bundle_of(settings: ExportSettings) -> Bundle:
    """The bundle of these settings, made if it is not there.

    Raises:
        UsageError: one of other settings stands there, from before the method changed.
    """
    if not Path(settings.out).exists():
        with bar(STAGES) as progress:
            export(settings, progress)
    bundle = open_bundle(Path(settings.out))
    if bundle.manifest.config != settings.recorded():
        raise UsageError(
            f"{settings.out} was made with other settings: remove it, or choose another --folder"
        )
    return bundle


def _commit() -> str:
    """The commit of the code, `-dirty` if the code is not quite that; rows just written are not code."""
    name = _git("describe", "--always")
    changed = _git("status", "--porcelain", "--", "edvit_tf", "converters", "benchmarks")
    return f"{name}-dirty" if changed else name or "unknown"


def _git(*arguments: str) -> str:
    answer = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, cwd=RESULTS.parents[1], check=False
    )
    return answer.stdout.strip()


def asked_of(row: Mapping[str, Any]) -> Asked:
    """What a row that stands there was asked by."""
    return Asked(row["data"], row["method"], row["devices"], row["seed"])


def add(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows beside those that are there by now: other runs add theirs, one at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        write_whole(path, (json.dumps([*read(path), *rows], indent=1) + "\n").encode())
    finally:
        os.close(folder)


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

    path = rows_file(arguments.data)
    for text in arguments.rows:
        method, devices, seed = text.split(":")
        asked = Asked(arguments.data, method, int(devices), int(seed))
        if asked in map(asked_of, read(path)):
            print(f"{text} is there already", file=sys.stderr)
            continue
        made = [asdict(row) for row in rows_of(asked, folder=arguments.folder, workers=arguments.workers)]
        add(path, made)
        write_page(arguments.data)
        for row in made:
            print(json.dumps({key: value for key, value in row.items() if key != "right"}), flush=True)


if __name__ == "__main__":
    main()
