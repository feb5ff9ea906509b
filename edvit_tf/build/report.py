"""`report.json` and `report.html` of a bundle: how it was made. Nothing in them is hashed or relied on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from string import Template

from edvit_tf.build.data import Dataset
from edvit_tf.build.shapes import TriedShape
from edvit_tf.build.work import MadeFusion, MadeSubmodel
from edvit_tf.bundle.manifest import Manifest

_PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>$name</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
  table { border-collapse: collapse; margin: 1rem 0 }
  th, td { border-bottom: 1px solid #ccc; padding: .3rem .8rem; text-align: right }
  th:first-child, td:first-child { text-align: left }
</style>
<h1>$name, version $version</h1>
<p>Accuracies are of the validation split, through the flatbuffers. Data: $origin.</p>
$accuracies
<h2>Sub-models</h2>
$submodels
$shapes
<h2>Pictures</h2>
$pictures
<h2>Seconds</h2>
$seconds
</html>
""")


@dataclass(frozen=True, slots=True)
class Making:
    """How an export went.

    Attributes:
        shapes: those that were tried, if any were, the best first.
        common: validation accuracy of the student that all sub-models start from, if there is one.
        seconds: of each stage.
    """

    shapes: Sequence[TriedShape]
    common: float | None
    seconds: Mapping[str, float]


def write_report(
    folder: Path,
    manifest: Manifest,
    submodels: Sequence[MadeSubmodel],
    single: MadeSubmodel | None,
    fusion: MadeFusion,
    making: Making,
    dataset: Dataset,
) -> None:
    """Write both files into a bundle's folder.

    Args:
        folder: of the bundle.
        manifest: as it was written.
        submodels: in the manifest's order.
        single: the single student, if there is one.
        fusion: with its accuracies by format.
        making: how the export went.
        dataset: what it was made from.
    """
    made = [*submodels, single] if single is not None else list(submodels)
    rows = [
        {
            "id": part.name,
            "classes": [manifest.classes[index] for index in part.group],
            "parameters": part.config.parameters,
            "macs": part.config.macs,
            "retrained_accuracy": part.retrained_accuracy,
            "sparsity": part.sparsity,
            "variants": [
                {
                    "format": name,
                    "bytes": variant.flatbuffer.stat().st_size,
                    "accuracy": variant.accuracy,
                    "cosine": variant.cosine,
                }
                for name, variant in part.variants.items()
            ],
            "pictures_an_epoch": part.rows,
            "seconds": part.seconds,
        }
        for part in made
    ]
    accuracies = {
        "teacher": manifest.accuracies.teacher,
        "fused": manifest.accuracies.fused,
        **{f"fused in {name}": fused.accuracy for name, fused in fusion.fused.items()},
        **{f"fused without {name}": value for name, value in manifest.accuracies.missing.items()},
    }
    if making.common is not None:
        accuracies["common student"] = making.common
    if manifest.accuracies.single is not None:
        accuracies["single student"] = manifest.accuracies.single
    content = {
        "name": manifest.name,
        "version": manifest.version,
        "data": dataset.report(),
        "split": manifest.accuracies.split,
        "accuracies": accuracies,
        "submodels": rows,
        "shapes": [
            {
                "widths": str(shape.widths),
                **asdict(shape.widths),
                "epochs": shape.epochs,
                "accuracy": shape.accuracy,
            }
            for shape in making.shapes
        ],
        "seconds": dict(making.seconds),
    }
    (folder / "report.json").write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    page = _PAGE.substitute(
        name=escape(manifest.name),
        version=manifest.version,
        origin=escape(dataset.origin),
        accuracies=_table(("", "accuracy"), [(name, f"{value:.2%}") for name, value in accuracies.items()]),
        submodels=_table(
            ("", "classes", "format", "bytes", "parameters", "MACs", "accuracy", "sparsity"),
            [
                (
                    part.name,
                    ", ".join(manifest.classes[index] for index in part.group),
                    name,
                    f"{variant.flatbuffer.stat().st_size:,}",
                    f"{part.config.parameters:,}",
                    f"{part.config.macs:,}",
                    f"{variant.accuracy:.2%}",
                    f"{part.sparsity:.1%}",
                )
                for part in made
                for name, variant in part.variants.items()
            ],
        ),
        shapes=_shapes_table(making.shapes),
        pictures=_table(
            ("", "to train on", "to validate"),
            [
                (label, str(train), str(validation))
                for label, train, validation in zip(
                    dataset.classes,
                    dataset.counts,
                    dataset.validation.counts(len(dataset.classes)),
                    strict=True,
                )
            ],
        ),
        seconds=_table(("", "seconds"), [(stage, f"{value:.1f}") for stage, value in making.seconds.items()]),
    )
    (folder / "report.html").write_text(page, "utf-8")


def _shapes_table(shapes: Sequence[TriedShape]) -> str:
    """What was tried, in the order given; nothing where nothing was."""
    if not shapes:
        return ""
    head = ("--widths", "blocks", "width", "heads", "MLP units", "stem", "epochs of the trial", "accuracy")
    rows = []
    for shape in shapes:
        widths = shape.widths
        numbers = (widths.blocks, widths.width, widths.heads, widths.mlp_units)
        stem = ", ".join(str(channels) for channels in widths.stem)
        cells = (str(widths), *(str(number) for number in numbers), stem, str(shape.epochs))
        rows.append((*cells, f"{shape.accuracy:.2%}"))
    return "<h2>Shapes</h2>\n" + _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "<table>\n" + "\n".join(lines) + "\n</table>"
