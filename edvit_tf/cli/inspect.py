"""`edvit-tf inspect`: check a bundle and say what is in it; of a flatbuffer, where it would run."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edvit_tf.cli.output import JsonOption, emit, show

if TYPE_CHECKING:
    from edvit_converters.targets import TargetReport
    from rich.table import Table

    from edvit_tf.bundle.manifest import Manifest

BundleArgument = Annotated[
    Path, typer.Argument(help="The folder that edvit-tf export wrote, or one .tflite file.")
]
TargetOption = Annotated[
    str, typer.Option("--target", help="Of a .tflite file: any, cpu, gpu, browser or coral.")
]


def inspect(bundle: BundleArgument, target: TargetOption = "any", json: JsonOption = False) -> None:
    """Check every file of a bundle against its manifest, and say what is in it.

    Of a .tflite file say operator by operator what a target would leave to the processor.
    """
    from edvit_tf.bundle.codec import to_json
    from edvit_tf.bundle.reader import open_bundle

    if bundle.is_file():
        _inspect_file(bundle, target, json=json)
        return
    opened = open_bundle(bundle)
    manifest = opened.manifest
    if json:
        emit(
            {
                "manifest": to_json(manifest),
                "verified": True,  # open_bundle has hashed every file, or raised
                "signed": opened.has_signature,
                "submodels": _rows(manifest),
            }
        )
        return
    show(f"{manifest.name}, version {manifest.version}: every file is as the manifest says.")
    show(f"{'Signed (the signature itself is not checked here)' if opened.has_signature else 'Not signed'}.")
    show(f"Classes: {', '.join(manifest.classes)}")
    size = manifest.input
    show(f"Input: uint8 {size.height} × {size.width} × {size.channels}")
    shares = manifest.accuracies
    show(f"Accuracy on the {shares.split} split: teacher {shares.teacher:.1%}, fused {shares.fused:.1%}")
    show(_table(manifest))


def _inspect_file(file: Path, target: str, *, json: bool) -> None:
    from edvit_converters.targets import report

    from edvit_tf.errors import ModelError

    try:
        found = report(file.read_bytes(), target)
    except ModelError:
        raise ModelError(
            f"{file} is no whole TFLite flatbuffer: give a bundle's folder, or one of its .tflite files.",
            code="model.load",
        ) from None
    if json:
        rows = [asdict(placement) for placement in found.placements]
        emit({"file": file, "target": target, "whole": not found.fallen_back, "operators": rows})
        return
    show(_placements(found))


def _placements(found: "TargetReport") -> "Table":
    from rich.table import Table

    table = Table("operator", "count", f"on {found.target}")
    for placement in found.placements:
        where = f"falls back: {placement.reason}" if placement.reason else "yes"
        table.add_row(placement.operator, str(placement.count), where)
    return table


def _rows(manifest: "Manifest") -> list[dict[str, object]]:
    return [
        {
            "id": submodel.id,
            "format": variant.format,
            "file": variant.file,
            "bytes": variant.bytes,
            "delegate_partitions": variant.partitions,
            "operators": list(variant.operators),
        }
        for submodel in manifest.submodels
        for variant in submodel.variants
    ]


def _table(manifest: "Manifest") -> "Table":
    from rich.table import Table

    table = Table("sub-model", "classes", "format", "kB", "million MACs", "partitions")
    for submodel in manifest.submodels:
        for variant in submodel.variants:
            table.add_row(
                submodel.id,
                ", ".join(submodel.classes),
                variant.format,
                f"{variant.bytes / 1e3:.1f}",
                f"{submodel.macs / 1e6:.2f}",
                str(variant.partitions),
            )
    return table
