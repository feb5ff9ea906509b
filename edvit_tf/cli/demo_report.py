"""What the demo found out: `report.json`, and the tables it prints."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain

import numpy as np
from rich.table import Table

from edvit_tf.bundle.reader import Bundle
from edvit_tf.fleet import Answer, DeviceReply
from edvit_tf.runtime.ensemble import Evaluation
from edvit_tf.runtime.measure import summarise


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One device: the labels of its group, its flatbuffer's size, and what a picture costs.

    All as the aggregator sees it: milliseconds are of the whole call, bytes are means per picture.
    """

    name: str
    classes: tuple[str, ...]
    bytes: int
    p50_ms: float
    p95_ms: float
    sent_bytes: float
    received_bytes: float


@dataclass(frozen=True, slots=True)
class Report:
    """`report.json`. Accuracies are fractions of the whole test split; the ratios are of flatbuffer files."""

    teacher_accuracy: float
    fused_accuracy: float
    single_accuracy: float | None
    degraded_accuracy: float
    recovered: bool
    devices: tuple[DeviceRow, ...]
    teacher_bytes: int
    size_ratio_per_device: float
    size_ratio_total: float
    discovered_by: str
    seconds: dict[str, float]

    def to_json(self) -> dict[str, object]:
        """Plain JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class FleetRun:
    """What the fleet answered to the same pictures, whole and with the sub-model `lost` missing."""

    answers: tuple[Answer, ...]
    partial: tuple[Answer, ...]
    lost: str
    recovered: bool
    recovered_seconds: float


def make_report(bundle: Bundle, evaluation: Evaluation, run: FleetRun, seconds: dict[str, float]) -> Report:
    """Put the report together."""
    devices = _device_rows(bundle, run.answers)
    teacher_bytes = bundle.file(bundle.manifest.teacher.file).stat().st_size
    return Report(
        teacher_accuracy=evaluation.teacher,
        fused_accuracy=evaluation.fused,
        single_accuracy=evaluation.single,
        degraded_accuracy=evaluation.missing[run.lost],
        recovered=run.recovered,
        devices=devices,
        teacher_bytes=teacher_bytes,
        size_ratio_per_device=teacher_bytes / max(device.bytes for device in devices),
        size_ratio_total=teacher_bytes / sum(device.bytes for device in devices),
        discovered_by="zeroconf",
        seconds=seconds,
    )


def _device_rows(bundle: Bundle, answers: Sequence[Answer]) -> tuple[DeviceRow, ...]:
    """One row a device, from complete answers."""
    parts: dict[str, list[DeviceReply]] = {}
    for reply in chain.from_iterable(answer.devices for answer in answers):
        parts.setdefault(reply.name, []).append(reply)
    return tuple(_device_row(bundle, name, replies) for name, replies in sorted(parts.items()))


def _device_row(bundle: Bundle, name: str, replies: Sequence[DeviceReply]) -> DeviceRow:
    submodels = [bundle.manifest.submodel(submodel) for submodel in replies[0].submodels]
    latency = summarise([reply.milliseconds for reply in replies])
    return DeviceRow(
        name=name,
        classes=tuple(chain.from_iterable(submodel.classes for submodel in submodels)),
        bytes=sum(submodel.variants[0].bytes for submodel in submodels),
        p50_ms=latency.p50_ms,
        p95_ms=latency.p95_ms,
        sent_bytes=float(np.mean([reply.sent_bytes for reply in replies])),
        received_bytes=float(np.mean([reply.received_bytes for reply in replies])),
    )


def accuracy_table(evaluation: Evaluation, report: Report) -> Table:
    """Teacher, fused and single student: accuracy and size."""
    table = Table("model", "accuracy", "largest file, kB", "all files, kB", title=_title(evaluation))
    _right(table, 1)
    sizes = [device.bytes for device in report.devices]
    teacher, largest, total = map(_kilobytes, (report.teacher_bytes, max(sizes), sum(sizes)))
    table.add_row("teacher, one device", f"{evaluation.teacher:.2%}", teacher, teacher)
    table.add_row(f"fused, {len(sizes)} devices", f"{evaluation.fused:.2%}", largest, total)
    if evaluation.single is not None:
        table.add_row("single student of that size", f"{evaluation.single:.2%}", largest, largest)
    table.add_row(
        "fused against teacher",
        f"{100 * (evaluation.fused - evaluation.teacher):+.2f} points",
        f"{report.size_ratio_per_device:.1f} times smaller",
        f"{report.size_ratio_total:.1f} times smaller",
    )
    return table


def device_table(report: Report) -> Table:
    """What each device holds and what a picture costs."""
    table = Table("device", "its classes", "file, kB", "p50 ms", "p95 ms", "bytes sent", "bytes back")
    table.columns[1].overflow = "fold"
    _right(table, 2)
    for device in report.devices:
        table.add_row(
            device.name,
            ", ".join(device.classes),
            _kilobytes(device.bytes),
            f"{device.p50_ms:.1f}",
            f"{device.p95_ms:.1f}",
            f"{device.sent_bytes:.0f}",
            f"{device.received_bytes:.0f}",
        )
    return table


def outage_table(evaluation: Evaluation, run: FleetRun) -> Table:
    """What a lost device costs, and for how long."""
    table = Table("fleet", "answers from", "weak classes", "accuracy", title=_title(evaluation))
    stages = (
        ("whole", run.answers[0], evaluation.fused),
        ("one device killed", run.partial[0], evaluation.missing[run.lost]),
    )
    for name, answer, accuracy in stages:
        weak = ", ".join(answer.weak_classes)
        table.add_row(name, f"{answer.answered} of {answer.expected}", weak, f"{accuracy:.2%}")
    return table


def _title(evaluation: Evaluation) -> str:
    return f"{evaluation.samples:,} test pictures, through the flatbuffers"


def _right(table: Table, first: int) -> None:
    for column in table.columns[first:]:
        column.justify = "right"


def _kilobytes(size: int) -> str:
    return f"{size / 1000:,.1f}"
