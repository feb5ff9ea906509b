"""The page and the figure of the method's results, from the rows that `benchmarks/method.py` wrote.

    python -m benchmarks.page --data fashion_mnist

Every figure on the page is computed here from docs/results/method-<data>.json; nothing is typed in but the
bars that the project set itself.
"""

import argparse
import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESULTS = Path(__file__).parents[1] / "docs" / "results"
RESAMPLES = 2000
MARKERS = "osD^"
"""Of the figure, one for each ten methods."""
ORDER = (
    "teacher", "teacher_int8", "edvit", "edvit_paper", "single", "single_uniform", "single_total",
    "random_init", "logit_sum", "single_cnn", "cnn_split", "cnn_teacher", "edvit_uniform", "edvit_kl",
    "edvit_bytes", "edvit_latency", "edvit_alike", "edvit_apart", "edvit_randaugment", "edvit_mixup",
    "edvit_cutmix", "edvit_undistilled", "edvit_matched", "edvit_few_others", "edvit_cooled",
    "edvit_no_common", "edvit_sparse", "edvit_two_of_four", "edvit_qat", "edvit_all_there",
    "edvit_unbalanced", "edvit_stem", "single_stem", "edvit_refined", "edvit_refined_uniform",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """What a row has or does instead of `edvit`, the step of docs/method.md whose alternative that is.

    Both are held against each other in `format`.
    """

    instead: str
    step: int | None = None
    format: str = "f32"


OTHERS: Mapping[str, Choice] = {
    "teacher": Choice("the whole model"),
    "single": Choice("one student of a sub-model's size, all gradient steps its own"),
    "single_uniform": Choice("the same, of uniform widths"),
    "single_total": Choice("one student as large as all sub-models, or larger, of uniform widths"),
    "edvit_paper": Choice("the paper's choices"),
    "random_init": Choice("random weights to start from", step=3),
    "logit_sum": Choice("no fusion: each class as its own sub-model says", step=6),
    "single_cnn": Choice("one convolutional network of a sub-model's bytes"),
    "cnn_split": Choice("a convolutional network a group"),
    "edvit_kl": Choice("units scored exactly", step=2),
    "edvit_uniform": Choice("uniform widths", step=3),
    "edvit_bytes": Choice("widths of each layer, by bytes", step=3),
    "edvit_latency": Choice("widths of each layer, by milliseconds", step=3),
    "edvit_alike": Choice("groups of classes that the teacher confuses", step=1),
    "edvit_apart": Choice("groups of classes that it does not", step=1),
    "edvit_randaugment": Choice("RandAugment", step=5),
    "edvit_mixup": Choice("MixUp", step=5),
    "edvit_cutmix": Choice("CutMix", step=5),
    "edvit_undistilled": Choice("no distillation", step=5),
    "edvit_matched": Choice("the class token matched", step=5),
    "edvit_few_others": Choice("as many pictures of others as of one class", step=5),
    "edvit_unbalanced": Choice("no regard to unequal classes", step=5),
    "edvit_cooled": Choice("the common student's rate falls to zero before they branch", step=4),
    "edvit_no_common": Choice("each cut from the teacher, its class token matched", step=4),
    "edvit_sparse": Choice("half of each kernel zeros", step=5),
    "edvit_two_of_four": Choice("two zeros in each four inputs", step=5),
    "edvit_qat": Choice("quantisation-aware training (both in int8-full)", step=5, format="int8-full"),
    "edvit_all_there": Choice("none left out in training", step=6),
    "edvit_stem": Choice("the same from a teacher with a convolutional stem"),
    "single_stem": Choice("one student of that teacher"),
    "edvit_refined": Choice("each cut from the teacher, then refined together (left since)"),
    "edvit_refined_uniform": Choice("the same, of uniform widths (left since)"),
}
"""What `edvit` is held against, and what that one has or does instead."""

METHOD_PAGE = Path(__file__).parents[1] / "docs" / "method.md"
_ABLATIONS = re.compile("(<!-- ablations:begin -->\n).*(<!-- ablations:end -->\n)", re.DOTALL)

Row = Mapping[str, Any]
Bits = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Bar:
    """A target: what is measured, over which number of devices, what it must be and what it aims at.

    `of` computes it from the rows, in points, percent or ratios; None when rows are missing.
    """

    what: str
    devices: int
    of: Callable[["Results", int], float | None]
    must: float
    aim: float | None = None


@dataclass(frozen=True, slots=True)
class Paired:
    """Two methods over the seeds that both have: how many, both accuracies, points between, interval."""

    seeds: int
    ours: float
    theirs: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Results:
    """All rows of one data set."""

    rows: tuple[Row, ...]

    def of(self, method: str, devices: int, format_name: str = "f32") -> tuple[Row, ...]:
        """The rows of all seeds; a whole model has one device whatever is asked."""
        found = [r for r in self.rows if (r["method"], r["format"]) == (method, format_name)]
        return tuple(r for r in found if r["devices"] in (devices, 1))

    def mean(
        self, method: str, devices: int, key: str = "accuracy", format_name: str = "f32"
    ) -> float | None:
        """The mean over seeds, None where there is nothing to take it of."""
        values = [row[key] for row in self.of(method, devices, format_name) if row[key] is not None]
        return float(np.mean(values)) if values else None

    def pairs(self, one: str, other: str, devices: int, format_name: str = "f32") -> list[tuple[Row, Row]]:
        """Rows of both methods with the same seed; a whole model is the same for every seed."""
        theirs = self.of(other, devices, format_name)
        return [
            (ours, row)
            for ours in self.of(one, devices, format_name)
            for row in theirs
            if row["devices"] == 1 or row["seed"] == ours["seed"]
        ]

    def less(self, one: str, other: str, devices: int, key: str = "accuracy") -> float | None:
        """Points by which one method is ahead of another, the mean over their pairs."""
        pairs = self.pairs(one, other, devices)
        return 100 * float(np.mean([ours[key] - theirs[key] for ours, theirs in pairs])) if pairs else None

    def paired(self, one: str, other: str, devices: int, format_name: str = "f32") -> Paired | None:
        """Points by which one method is ahead of another over their pairs, and the 95 % interval.

        A paired bootstrap: the test pictures are drawn again, the same for both and for every seed.
        """
        pairs = self.pairs(one, other, devices, format_name)
        if not pairs:
            return None
        each = [bits(ours["right"]).astype(float) - bits(theirs["right"]) for ours, theirs in pairs]
        difference = 100 * np.mean(each, axis=0)
        draws = np.random.default_rng(1).integers(0, len(difference), (RESAMPLES, len(difference)))
        low, high = np.quantile(difference[draws].mean(axis=1), [0.025, 0.975])
        ours, theirs = (float(np.mean([pair[side]["accuracy"] for pair in pairs])) for side in (0, 1))
        return Paired(len(pairs), ours, theirs, float(difference.mean()), float(low), float(high))


def bits(text: str) -> Bits:
    """Which test pictures were classified rightly, as `pack` wrote it."""
    count, _, packed = text.partition(":")
    return np.unpackbits(np.frombuffer(base64.b64decode(packed), np.uint8), count=int(count)).astype(bool)


def pack(right: Bits) -> str:
    """The same as text: the number of pictures, a colon, and the bits in base64."""
    return f"{len(right)}:{base64.b64encode(np.packbits(right).tobytes()).decode()}"


def _less(one: str, other: str, key: str = "accuracy") -> Callable[[Results, int], float | None]:
    return lambda results, devices: results.less(one, other, devices, key)


def _worst_missing(results: Results, devices: int) -> float | None:
    worst, whole = results.mean("edvit", devices, "worst_missing_accuracy"), results.mean("edvit", devices)
    return None if worst is None or whole is None else 100 * (worst - whole)


def _half_missing(results: Results, devices: int) -> float | None:
    half = results.mean("edvit", devices, "half_missing_accuracy")
    return None if half is None else 100 * half


def _size_ratio(format_name: str) -> Callable[[Results, int], float | None]:
    return lambda results, devices: results.mean("edvit", devices, "size_ratio_per_device", format_name)


def _cost_of(format_name: str) -> Callable[[Results, int], float | None]:
    def points(results: Results, devices: int) -> float | None:
        whole = results.mean("edvit", devices)
        small = results.mean("edvit", devices, format_name=format_name)
        return None if whole is None or small is None else 100 * (small - whole)

    return points


BARS: Mapping[str, Sequence[Bar]] = {
    "fashion_mnist": (
        Bar("fused less teacher, points", 10, _less("edvit", "teacher"), -2.0, -1.0),
        Bar("fused less teacher, points", 5, _less("edvit", "teacher"), -0.8, -0.2),
        Bar("fused less teacher, points", 2, _less("edvit", "teacher"), 0.0, 0.6),
        Bar("fused less one student, points", 10, _less("edvit", "single"), 1.5, 3.0),
        Bar("fused less one student, points", 5, _less("edvit", "single"), 0.5, 1.0),
        Bar("fused less one student, points", 2, _less("edvit", "single"), 0.3, 0.8),
        Bar("worst one missing less fused, points", 10, _worst_missing, -1.5),
        Bar("worst one missing less fused, points", 5, _worst_missing, -1.5),
        Bar("half missing, percent", 10, _half_missing, 77.0),
        Bar("fused less the paper's choices, points", 10, _less("edvit", "edvit_paper"), 0.0),
        Bar("fused less the paper's choices, points", 5, _less("edvit", "edvit_paper"), 0.0),
        Bar("fused less the paper's choices, points", 2, _less("edvit", "edvit_paper"), 0.0),
        Bar("one backward pass less the exact score, points", 10, _less("edvit", "edvit_kl"), -0.3),
        Bar("times smaller a device, f32", 10, _size_ratio("f32"), 24),
        Bar("times smaller a device, int8-dynamic", 10, _size_ratio("int8-dynamic"), 40),
        Bar("times smaller a device, int4-dynamic", 10, _size_ratio("int4-dynamic"), 48),
        Bar("int8-dynamic less f32, points", 10, _cost_of("int8-dynamic"), -0.3),
        Bar("int4-dynamic less f32, points", 10, _cost_of("int4-dynamic"), -1.0),
    ),
    "cifar10": (
        Bar("fused less teacher, points", 10, _less("edvit", "teacher"), -3.0),
        Bar("fused less one student, points", 10, _less("edvit", "single"), 3.0),
    ),
    "cifar10?long-tail=50": (
        Bar(
            "balanced accuracy less ignoring the tail, points",
            10,
            _less("edvit", "edvit_unbalanced", "balanced_accuracy"),
            3.0,
        ),
    ),
}


def page(data: str, results: Results) -> str:
    """The whole page as Markdown."""
    rows = rows_file(data).name
    parts = [
        f"# The method on {data}",
        "Made by `python -m benchmarks.page`, from the rows of `benchmarks/method.py` in "
        f"[{rows}]({rows}), which name the command and the commit behind each. "
        "Accuracies are of the test split, through the flatbuffers; everything was chosen on validation. Of "
        "several seeds a figure is the mean and, in brackets, the least and the most. Log loss is in nats a "
        "picture.",
        f"![Accuracy against bytes a device]({rows_file(data).with_suffix('.svg').name})",
        "## Bars",
        _bars(data, results),
        "## What each choice is worth",
        _margins(results),
        "## All rows",
        _table(results),
    ]
    return "\n\n".join(parts) + "\n"


def _bars(data: str, results: Results) -> str:
    lines = ["| what | devices | measured | must be | aim | |", "|---|--:|--:|--:|--:|---|"]
    for bar in BARS.get(data, ()):
        found = bar.of(results, bar.devices)
        if found is None:
            measured, verdict = "–", "not measured yet"
        else:
            measured = f"{found:.2f}"
            verdict = "met" if found >= bar.must else f"missed by {bar.must - found:.2f}"
        aim = "–" if bar.aim is None else f"{bar.aim:g}"
        lines.append(f"| {bar.what} | {bar.devices} | {measured} | {bar.must:g} | {aim} | {verdict} |")
    return "\n".join(lines)


def _margins(results: Results) -> str:
    lines = [
        "Accuracy of `edvit` less that of each other row, in points: the mean over the seeds that both have. "
        "The interval (95 %) is of a paired bootstrap over the test pictures; what another seed would change "
        "is not in it.",
        "",
        "| less | which has | devices | seeds | points | interval |",
        "|---|---|--:|--:|--:|---|",
    ]
    for other, choice in OTHERS.items():
        for devices in _sizes(results):
            found = results.paired("edvit", other, devices, choice.format)
            if found is not None:
                lines.append(
                    f"| `{other}` | {choice.instead} | {devices} | {found.seeds} | {_points(found)} |"
                )
    return "\n".join(lines)


def ablations(of_data: Mapping[str, Results]) -> str:
    """A table of each step's choices: accuracies with ours and with the other, over the seeds of both."""
    lines = [
        "| step | row | which has | data | devices | seeds | `edvit` % | it % | points | interval |",
        "|--:|---|---|---|--:|--:|--:|--:|--:|---|",
    ]
    of_a_step = [(choice.step, other) for other, choice in OTHERS.items() if choice.step is not None]
    for step, other in sorted(of_a_step, key=lambda pair: pair[0]):
        for data, results in of_data.items():
            for devices in _sizes(results):
                found = results.paired("edvit", other, devices, OTHERS[other].format)
                if found is not None:
                    of = f"{data} | {devices} | {found.seeds}"
                    both = f"{_percent(found.ours)} | {_percent(found.theirs)}"
                    lines.append(
                        f"| {step} | `{other}` | {OTHERS[other].instead} | {of} | {both} | {_points(found)} |"
                    )
    return "\n".join(lines)


def _sizes(results: Results) -> list[int]:
    return sorted({row["devices"] for row in results.rows if row["method"] == "edvit"}, reverse=True)


def _points(found: Paired) -> str:
    return f"{found.mean:+.2f} | {found.low:+.2f} to {found.high:+.2f}"


def _table(results: Results) -> str:
    columns = {
        "accuracy": _percent, "balanced_accuracy": _percent, "worst_missing_accuracy": _percent,
        "half_missing_accuracy": _percent, "ece": "{:.3f}".format, "log_loss": "{:.3f}".format,
    }  # fmt: skip
    lines = [
        "| method | devices | format | seeds | accuracy % | balanced % | worst one missing % "
        "| half missing % | ECE | log loss | bytes a device | times smaller | parameters, times fewer |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    keys = {(row["method"], row["devices"], row["format"]) for row in results.rows}
    for method, devices, format_name in sorted(keys, key=lambda k: (-k[1], ORDER.index(k[0]), k[2])):
        rows = [
            r
            for r in results.rows
            if (r["method"], r["devices"], r["format"]) == (method, devices, format_name)
        ]
        cells = [method, str(devices), format_name, str(len(rows))]
        cells += [_spread([row.get(key) for row in rows], write) for key, write in columns.items()]
        cells += [
            f"{max(row['bytes_per_device'] for row in rows):,}",
            f"{np.mean([row['size_ratio_per_device'] for row in rows]):.1f}",
            f"{np.mean([row['parameter_ratio_per_device'] for row in rows]):.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _spread(values: Sequence[float | None], write: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean = write(float(np.mean(known)))
    return mean if len(known) == 1 else f"{mean} ({write(min(known))}–{write(max(known))})"


def figure(data: str, results: Results, path: Path) -> None:
    """Accuracy against bytes a device, a curve a method; one of a single size is an open mark."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    colours = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
    with plt.rc_context({"svg.hashsalt": data, "svg.fonttype": "none"}):
        drawing, axes = plt.subplots(figsize=(10, 6))
        for number, method in enumerate(ORDER):
            rows = [row for row in results.rows if row["method"] == method and row["format"] == "f32"]
            points = {}
            for size in {row["devices"] for row in rows}:
                same = [row for row in rows if row["devices"] == size]
                points[float(np.mean([r["bytes_per_device"] for r in same])) / 1000] = 100 * float(
                    np.mean([r["accuracy"] for r in same])
                )
            if points:
                sizes = sorted(points)
                axes.plot(
                    sizes,
                    [points[size] for size in sizes],
                    color=colours[number % len(colours)],
                    marker=MARKERS[number // len(colours)],
                    fillstyle="full" if len(sizes) > 1 else "none",
                    linestyle="-" if len(sizes) > 1 else "none",
                    label=method,
                )
        axes.set_xscale("log")
        axes.set_xlabel("kilobytes a device (f32 flatbuffer)")
        axes.set_ylabel("accuracy on the test split, %")
        axes.set_title(f"{data}: what a device has to hold, and what the fleet knows")
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
        drawing.savefig(path, format="svg", metadata={"Date": None}, bbox_inches="tight")
        plt.close(drawing)


def slug(data: str) -> str:
    """The name of a data set as a part of a file's."""
    return re.sub("[^a-z0-9_]+", "-", data)


def rows_file(data: str) -> Path:
    """Where the rows of a data set lie; page and figure stand beside it."""
    return RESULTS / f"method-{slug(data)}.json"


def read(path: Path) -> list[dict[str, Any]]:
    """The rows that are there."""
    return list(json.loads(path.read_text("utf-8"))) if path.exists() else []


def results_of(data: str) -> Results:
    """All rows of a data set that are there."""
    return Results(tuple(read(rows_file(data))))


def write(data: str) -> None:
    """Write page and figure of a data set, and the table of steps in docs/method.md."""
    file, results = rows_file(data), results_of(data)
    figure(data, results, file.with_suffix(".svg"))
    file.with_suffix(".md").write_text(page(data, results), "utf-8")
    table = ablations({name: results_of(name) for name in BARS})
    text = _ABLATIONS.sub(lambda found: f"{found[1]}{table}\n{found[2]}", METHOD_PAGE.read_text("utf-8"))
    METHOD_PAGE.write_text(text, "utf-8")


def main() -> None:
    """Write the page of one data set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="fashion_mnist", choices=sorted(BARS))
    write(parser.parse_args().data)


if __name__ == "__main__":
    main()
