"""What the benchmark of the method measures, on answers that are made up."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import method, page
from benchmarks.method import HEADS, Asked, bundle_of, logit_sum, measure, settings_of
from edvit_tf.build.data import Split
from edvit_tf.build.grouping import rows_of_epoch
from edvit_tf.build.plan import plan_export
from edvit_tf.build.settings import ExportSettings
from edvit_tf.build.shapes import shapes
from edvit_tf.build.widths import uniform
from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import UsageError
from edvit_tf.runtime.ensemble import Answers

LABELS = np.arange(8) % 4
NAMES = ("a", "b", "c", "d")


def one_class_each(names: tuple[str, ...]) -> NDArray[np.float32]:
    """Right about the classes whose sub-model is there; class 0 for the others."""
    known = np.array([NAMES[label] in names for label in LABELS])
    return np.eye(4, dtype=np.float32)[np.where(known, LABELS, 0)]


def test_a_missing_submodel_and_half_of_them_missing_are_measured() -> None:
    found = measure(one_class_each, NAMES, LABELS, seed=1)
    assert (found.accuracy, found.balanced_accuracy, found.ece, found.log_loss) == (1, 1, 0, 0)
    assert found.worst_missing_accuracy == pytest.approx(0.75)
    # Of four, two are missing: class 0 is right anyway, so two or three of four classes are.
    assert found.half_missing_accuracy is not None
    assert 0.5 <= found.half_missing_accuracy <= 0.75
    alone = measure(one_class_each, NAMES[:1], LABELS, seed=1)
    assert alone.accuracy == 0.25
    assert alone.worst_missing_accuracy is None
    assert alone.half_missing_accuracy is None


def test_log_loss_is_of_the_true_class() -> None:
    probabilities = np.array([[0.5, 0.5], [0.25, 0.75]], np.float32)
    assert method.log_loss(probabilities, np.array([0, 1])) == pytest.approx(-np.log([0.5, 0.75]).mean())
    assert method.log_loss(np.eye(2, dtype=np.float32), np.array([1, 0])) == pytest.approx(-np.log(1e-9))


def test_without_a_fusion_a_class_has_what_its_own_submodel_gives(bundle: Bundle) -> None:
    manifest = bundle.manifest
    first = manifest.submodels[0]
    logits = np.full((1, len(first.classes) + 1), -9, np.float32)
    logits[0, 0] = 9  # its own first class
    answers = {first.id: Answers(np.zeros((1, first.feature_size), np.float32), logits)}
    probabilities = logit_sum(bundle, answers)
    assert manifest.classes[int(probabilities.argmax())] == first.classes[0]
    assert probabilities.sum() == pytest.approx(1)
    absent = [manifest.classes.index(label) for part in manifest.submodels[1:] for label in part.classes]
    assert probabilities[0, absent].max() < 1e-5


@pytest.mark.parametrize(("devices", "ratio"), [(10, 32), (5, 8.6), (2, 3.9)])
def test_submodels_are_as_many_times_smaller_as_the_table_says(devices: int, ratio: float) -> None:
    def ratios(name: str) -> list[float]:
        asked = Asked("fashion_mnist", name, devices, 1)
        plan = plan_export(settings_of(asked, folder=Path("x"), workers=1))
        return [plan.config.parameters / submodel.config.parameters for submodel in plan.submodels]

    assert ratios("edvit_uniform") == pytest.approx([ratio] * devices, rel=0.03)
    assert min(ratios("edvit")) >= min(ratios("edvit_uniform"))  # the shape that was chosen is no larger


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> NDArray[np.int64]:
    """Of the training pictures, of which there are a thousand empty ones here."""
    labels = np.repeat(np.arange(10), 100)
    split = Split(np.zeros((len(labels), 1, 1, 1), np.uint8), labels)
    monkeypatch.setattr(method, "load", lambda *_, **__: SimpleNamespace(train=split))
    return labels


@pytest.mark.parametrize("devices", [10, 5, 2])
def test_nobody_learns_from_fewer_pictures_than_we_do(devices: int, labels: NDArray[np.int64]) -> None:
    def pictures(settings: ExportSettings) -> int:
        groups = [part.group for part in plan_export(settings).submodels]
        alone = sum(rows_of_epoch(labels, group, settings.others) for group in groups)
        later = settings.qat_epochs + (settings.sparsity_epochs if settings.sparsity else 0)
        epochs = settings.epochs + later
        return epochs * alone + settings.common_epochs * len(labels)

    def of(name: str) -> ExportSettings:
        return settings_of(Asked("fashion_mnist", name, devices, 1), folder=Path("x"), workers=1)

    ours = pictures(of("edvit"))
    zeros_and_rounding = ("edvit_sparse", "edvit_qat")
    changed = ("edvit_paper", "edvit_no_common", "edvit_few_others", "edvit_stem", *zeros_and_rounding)
    for name in ("single", "single_stem", *changed):
        assert ours <= pictures(of(name)) < 1.15 * ours, name


@pytest.mark.parametrize("devices", [10, 5, 2])
@pytest.mark.usefixtures("labels")
def test_rows_that_differ_in_one_choice_have_one_shape(devices: int) -> None:
    def of(name: str) -> ExportSettings:
        return settings_of(Asked("fashion_mnist", name, devices, 1), folder=Path("x"), workers=1)

    for name in ("edvit", "single"):
        plan = plan_export(of(name))
        # It is one of those that are tried.
        assert plan.widths in shapes(plan.config, uniform(plan.config, HEADS[devices]))
    for name in ("edvit_matched", "random_init", "edvit_kl", "logit_sum", "single_cnn"):
        assert of(name).widths == of("edvit").widths
    for name in ("edvit_paper", "edvit_uniform", "single_uniform"):
        assert of(name).widths == "uniform"
    assert of("edvit_bytes").widths == "bytes"
    assert of("edvit_latency").widths == "latency"
    assert of("single_total").widths == "uniform"


def test_no_row_is_measured_on_the_bundle_of_other_data() -> None:
    asked = [Asked(data, "edvit", 10, 1) for data in method.TEACHERS]
    folders = {Path(settings_of(row, folder=Path("x"), workers=1).out).parent for row in asked}
    assert len(folders) == len(method.TEACHERS)


def test_no_row_is_measured_on_a_bundle_of_before_a_change(bundle: Bundle) -> None:
    asked = ExportSettings(model="m", data="d", devices=2, out=str(bundle.path), epochs=3)
    with pytest.raises(UsageError, match="was made with other settings"):
        bundle_of(asked)


def test_the_page_knows_every_method() -> None:
    described = set(re.findall(r"^    ([a-z_0-9]+)(?:,|  |$)", str(method.__doc__), re.MULTILINE))
    left = {"edvit_refined", "edvit_refined_uniform"}
    assert described | set(method.CHANGES) | left == set(page.ORDER)


def test_rows_that_other_runs_write_meanwhile_stay(tmp_path: Path) -> None:
    path = tmp_path / "results" / "method-x.json"
    assert page.read(path) == []

    def add(seed: int) -> None:
        method.add(path, [{"data": "x", "method": "edvit", "devices": 10, "seed": seed}])

    with ThreadPoolExecutor(8) as runs:
        list(runs.map(add, range(40)))
    assert sorted(method.asked_of(row).seed for row in page.read(path)) == list(range(40))
