"""How right the flatbuffers of a benchmark are on pictures that were not trained on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edvit_tf.errors import UsageError

if TYPE_CHECKING:
    from edvit_tf.bundle.reader import Bundle
    from edvit_tf.runtime.benchmark import Row


def with_accuracies(rows: "Sequence[Row]", bundle: "Bundle | None", data: str) -> "list[Row]":
    """The rows with accuracies on the test pictures of a data set, where the flatbuffer works.

    A sub-model's is over its group's classes and "other", whatever has as many logits as there are classes is
    judged on all.

    Raises:
        UsageError: it cannot be told which classes a flatbuffer answers for.
        DataError: the data cannot be read, or has other classes than the bundle.
    """
    from edvit_tf.build.data import load_test
    from edvit_tf.build.grouping import relabel
    from edvit_tf.runtime.ensemble import accuracy, match_labels, run_many
    from edvit_tf.runtime.interpreter import Flatbuffer
    from edvit_tf.vit.config import ImageSize

    working = [row for row in rows if row.status == "ok"]
    if not working:
        return list(rows)
    shape = Flatbuffer(working[0].candidate.file).inputs[0].shape[1:]
    test, classes = load_test(
        data,
        seed=bundle.manifest.seed if bundle else 0,
        image=ImageSize(*shape),
        sound=bundle.manifest.input.sound if bundle else None,
    )
    names = bundle.manifest.classes if bundle else tuple(classes)
    labels = match_labels(test.labels, classes, names)
    groups = _groups(bundle)

    def measured(row: "Row") -> "Row":
        if row.status != "ok":
            return row
        file = row.candidate.file
        answers = run_many(file, test.images).logits
        group = groups.get(row.candidate.name, tuple(range(len(names))))
        if answers.shape[1] not in (len(group), len(group) + 1):
            raise UsageError(
                f"{file.name} gives {answers.shape[1]} logits, and {data} has {len(names)} classes: which "
                "ones it answers for is in its bundle, so give that"
            )
        reached = accuracy(answers, relabel(labels, group))
        return replace(row, candidate=replace(row.candidate, accuracy=reached))

    return [measured(row) for row in rows]


def _groups(bundle: "Bundle | None") -> dict[str, tuple[int, ...]]:
    """The classes that each variant of a bundle answers for, by its file."""
    if bundle is None:
        return {}
    manifest = bundle.manifest
    return {
        variant.file: tuple(manifest.classes.index(label) for label in submodel.classes)
        for submodel in manifest.submodels
        for variant in submodel.variants
    }


def bundle_of(files: Sequence[Path]) -> "Bundle | None":
    """The bundle that is measured, if it is one."""
    from edvit_tf.bundle.reader import open_bundle

    return open_bundle(files[0]) if len(files) == 1 and files[0].is_dir() else None
