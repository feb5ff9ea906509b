"""`edvit-tf evaluate`: how right a bundle is on pictures that nobody has trained or chosen on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edvit_tf.cli.output import JsonOption, emit, say, show
from edvit_tf.cli.wire import WireQualityOption

if TYPE_CHECKING:
    from rich.table import Table

    from edvit_tf.runtime.ensemble import Evaluation

BundleArgument = Annotated[Path, typer.Argument(help="The folder that edvit-tf export wrote.")]
DataOption = Annotated[
    str, typer.Option("--data", help="A registered data set, or a folder of class folders.")
]
SamplesOption = Annotated[
    int | None,
    typer.Option("--samples", min=1, help="Only that many pictures, evenly spread over the split."),
]
FormatOption = Annotated[
    str | None, typer.Option("--format", help="The format to evaluate; by default each sub-model's first.")
]


def evaluate(
    bundle: BundleArgument,
    data: DataOption,
    samples: SamplesOption = None,
    format_name: FormatOption = None,
    wire: Annotated[
        str, typer.Option("--wire", help="As devices see pictures sent raw (default), jpeg or webp.")
    ] = "raw",
    wire_quality: WireQualityOption = None,
    json: JsonOption = False,
) -> None:
    """Measure a bundle on the test split: teacher, fused, and without each sub-model."""
    import numpy as np

    from edvit_tf.build.data import load_test
    from edvit_tf.bundle.reader import open_bundle
    from edvit_tf.errors import UsageError
    from edvit_tf.fleet.wire import WireSettings
    from edvit_tf.rpc.codecs import round_trip
    from edvit_tf.runtime.ensemble import evaluate as evaluate_bundle
    from edvit_tf.runtime.ensemble import match_labels
    from edvit_tf.vit.config import ImageSize

    coding = WireSettings(wire, wire_quality).forced
    if coding is None:
        raise UsageError("every picture is seen in the same way here: give --wire raw, jpeg or webp")
    opened = open_bundle(bundle)
    spec = opened.manifest.input
    test, classes = load_test(
        data,
        seed=opened.manifest.seed,
        image=ImageSize(spec.height, spec.width, spec.channels),
        sound=spec.sound,
    )
    labels = match_labels(test.labels, classes, opened.manifest.classes)
    chosen = np.linspace(0, len(labels) - 1, min(samples or len(labels), len(labels))).astype(np.int64)
    say(f"Evaluating {opened.manifest.name} on {len(chosen)} test pictures of {data}.")
    images, size = round_trip(test.images[chosen], coding)
    result = evaluate_bundle(opened, images, labels[chosen], variant=format_name)
    if json:
        emit(
            {
                "teacher_accuracy": result.teacher,
                "single_accuracy": result.single,
                "fused_accuracy": result.fused,
                "missing": [{"id": name, "accuracy": value} for name, value in result.missing.items()],
                "samples": result.samples,
                "picture_bytes": size,
            }
        )
        return
    show(_table(result))


def _table(result: "Evaluation") -> "Table":
    from rich.table import Table

    table = Table("model", "accuracy", title=f"Test split, {result.samples} pictures")
    table.columns[1].justify = "right"
    table.add_row("teacher", f"{result.teacher:.2%}")
    table.add_row("fused", f"{result.fused:.2%}")
    for name, value in result.missing.items():
        table.add_row(f"fused without {name}", f"{value:.2%}")
    if result.single is not None:
        table.add_row("single student", f"{result.single:.2%}")
    return table
