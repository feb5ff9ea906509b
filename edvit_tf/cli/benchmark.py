"""`edvit-tf benchmark`: what flatbuffers cost on this machine, beside the whole model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edvit_tf.cli.benchmark_data import bundle_of, with_accuracies
from edvit_tf.cli.output import JsonOption, emit, say, show

if TYPE_CHECKING:
    from rich.table import Table

    from edvit_tf.runtime.benchmark import Candidate, Row

FilesArgument = Annotated[
    list[Path] | None, typer.Argument(help="One bundle's folder, or any number of .tflite files.")
]
BaselineOption = Annotated[
    list[Path] | None,
    typer.Option("--baseline", help="The whole model as .tflite, once for each format of it."),
]
FloorOption = Annotated[
    float | None, typer.Option("--floor", min=0, max=1, help="Fail when a sub-model's accuracy is below.")
]
DataOption = Annotated[
    str | None,
    typer.Option("--data", help="Measure accuracies on the test pictures of this data set or folder."),
]


def benchmark(
    files: FilesArgument = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of one call.")] = 1,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns that each flatbuffer has.")] = 10,
    baseline: BaselineOption = None,
    floor: FloorOption = None,
    data: DataOption = None,
    vit_b: Annotated[
        bool, typer.Option("--vit-b", help="A ViT-B and a sub-model of it, of random weights; no files.")
    ] = False,
    processor_time: Annotated[
        bool,
        typer.Option("--processor-time", help="With --vit-b and one thread, on a machine that is busy."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure flatbuffers on this machine, in interleaved rounds, against the whole model.

    Of a bundle every variant is measured, beside its teacher; accuracies are the manifest's, of the
    validation split, or with --data measured on its test pictures.
    """
    from edvit_tf.errors import UsageError

    if processor_time and (not vit_b or threads > 1):
        raise UsageError("--processor-time is for --vit-b and one thread: several would be added up.")
    if vit_b:
        if files or baseline or data or floor is not None:
            raise UsageError("--vit-b makes its own models: leave out files, --baseline, --data and --floor.")
        _vit_b(threads, rounds, processor_time=processor_time, json=json)
        return
    from edvit_tf.runtime.benchmark import benchmark as measure
    from edvit_tf.runtime.interpreter import runtime_name

    candidates = _candidates(files or [], baseline or [])
    known = [c for c in candidates if not c.whole and c.accuracy is not None]
    if floor is not None and not known and data is None:
        raise UsageError("--floor needs accuracies, which only a bundle records: give a bundle, or --data.")
    say(f"Measuring {len(candidates)} flatbuffers with {runtime_name()}, {threads} thread(s).")
    rows = measure(candidates, threads=threads, rounds=rounds)
    if data is not None:
        rows = with_accuracies(rows, bundle_of(files or []), data)
    if json:
        emit({"runtime": runtime_name(), "threads": threads, "rows": [_row(row, rows) for row in rows]})
    else:
        show(_table(rows))
    _judge(rows, floor)


def _candidates(files: Sequence[Path], baselines: Sequence[Path]) -> "list[Candidate]":
    from edvit_tf.errors import UsageError
    from edvit_tf.runtime.benchmark import Candidate

    if not files:
        raise UsageError("Give a bundle's folder, some .tflite files, or --vit-b.")
    if any(file.is_dir() for file in files):
        if len(files) > 1:
            raise UsageError("Give one bundle's folder and nothing beside it, or .tflite files alone.")
        found = _of_bundle(files[0])
    else:
        found = [Candidate(str(file), file) for file in files]
    found = [Candidate(str(file), file, whole=True) for file in baselines] + found
    for candidate in found:
        if not candidate.file.is_file():
            raise UsageError(f"There is no file {candidate.file}: check the path.")
    names = [candidate.name for candidate in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"{', '.join(twice)} is given twice: once is enough.")
    return found


def _of_bundle(folder: Path) -> "list[Candidate]":
    from edvit_tf.bundle.reader import open_bundle
    from edvit_tf.runtime.benchmark import Candidate

    bundle = open_bundle(folder)
    manifest = bundle.manifest
    accuracies = manifest.accuracies
    whole = Candidate(
        manifest.teacher.file, bundle.file(manifest.teacher.file), None, accuracies.teacher, whole=True
    )
    return [whole] + [
        Candidate(
            variant.file,
            bundle.file(variant.file),
            bundle.file(variant.test_vector),
            accuracies.variants.get(variant.file),
        )
        for submodel in manifest.submodels
        for variant in submodel.variants
    ]


def _judge(rows: "Sequence[Row]", floor: float | None) -> None:
    """Raise when a flatbuffer does not work, or is below the floor; the table has been shown."""
    from edvit_tf.errors import ModelError

    broken = [f"{row.candidate.name}: {row.reason}" for row in rows if row.status != "ok"]
    if broken:
        raise ModelError(f"Not all flatbuffers work here: {' '.join(broken)}", code="benchmark.status")
    below = [
        f"{row.candidate.name} ({row.candidate.accuracy:.2%})"
        for row in rows
        if floor is not None
        and not row.candidate.whole
        and row.candidate.accuracy is not None
        and row.candidate.accuracy < floor
    ]
    if below:
        raise ModelError(
            f"Below the floor of {floor:.2%}: {', '.join(below)}. Choose another format, or train longer.",
            code="benchmark.floor",
        )


def _ratios(row: "Row", rows: "Sequence[Row]") -> dict[str, float | None]:
    """How many times smaller and faster than the whole model: as first given, and in its fastest format."""
    from edvit_tf.runtime.benchmark import fastest

    wholes = [other for other in rows if other.candidate.whole and other.latency is not None]
    best = fastest(wholes)
    if row.candidate.whole or row.latency is None or best is None or best.latency is None:
        return {"size_ratio": None, "speed_ratio": None, "speed_ratio_best": None}
    first = wholes[0]
    assert first.latency is not None  # noqa: S101 (only such are among the wholes)
    return {
        "size_ratio": first.bytes / row.bytes,
        "speed_ratio": first.latency.min_ms / row.latency.min_ms,
        "speed_ratio_best": best.latency.min_ms / row.latency.min_ms,
    }


def _row(row: "Row", rows: "Sequence[Row]") -> dict[str, object]:
    latency = row.latency
    return {
        "name": row.candidate.name,
        "whole": row.candidate.whole,
        "status": row.status,
        "reason": row.reason,
        "bytes": row.bytes,
        "accuracy": row.candidate.accuracy,
        "min_ms": latency.min_ms if latency else None,
        "p50_ms": latency.p50_ms if latency else None,
        "p95_ms": latency.p95_ms if latency else None,
        "images_per_second": 1e3 / latency.p50_ms if latency else None,
        "partitions": row.partitions,
        **_ratios(row, rows),
    }


_STATUS = {"ok": "ok", "invalid": "exported but invalid", "failed": "failed"}


def _table(rows: "Sequence[Row]") -> "Table":
    from rich.table import Table

    table = Table(
        "model", "status", "MB", "accuracy", "ms: min/p50/p95", "images/s", "parts", "smaller",
        "faster/than best",
    )  # fmt: skip
    table.columns[0].no_wrap = True
    for column in table.columns[2:]:
        column.justify = "right"
    for row in rows:
        latency = row.latency
        accuracy = row.candidate.accuracy
        smaller, *faster = ("" if ratio is None else f"{ratio:.1f}×" for ratio in _ratios(row, rows).values())
        table.add_row(
            row.candidate.file.name.removesuffix(".tflite"),
            _STATUS[row.status],
            f"{row.bytes / 1e6:.3f}",
            "" if accuracy is None else f"{accuracy:.2%}",
            f"{latency.min_ms:.2f}/{latency.p50_ms:.2f}/{latency.p95_ms:.2f}" if latency else "",
            f"{1e3 / latency.p50_ms:.1f}" if latency else "",
            "" if row.partitions is None else str(row.partitions),
            smaller,
            "/".join(filter(None, faster)),
        )
    return table


def _vit_b(threads: int, rounds: int, *, processor_time: bool, json: bool) -> None:
    import time

    from edvit_converters.vit_b import compare

    clock = time.process_time_ns if processor_time else time.perf_counter_ns
    figures = compare(threads=threads, rounds=rounds, say=say, clock=clock)
    if json:
        emit(figures)
        return
    for name, value in figures.items():
        show(f"{name}: {value:.2f}" if isinstance(value, float) else f"{name}: {value}")
