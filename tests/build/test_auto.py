"""--format auto: the fastest that is good enough comes first, and why the others did not."""

from dataclasses import replace
from pathlib import Path

import pytest

from edvit_tf.build.auto import judge
from edvit_tf.build.export import export
from edvit_tf.build.progress import Silent
from edvit_tf.build.settings import AUTO_FORMATS, ExportSettings
from edvit_tf.bundle.reader import open_bundle
from edvit_tf.bundle.tried import Measured, Tried
from edvit_tf.errors import PlanError, UsageError
from edvit_tf.vit.checkpoint import Checkpoint, save

INT4 = Tried("int4-dynamic", 100, 300, 8.0, 0.88)
INT8 = Tried("int8", 200, 500, 9.0, 0.90)
DYNAMIC = Tried("int8-dynamic", 190, 480, 8.9, 0.901)
F32 = Tried("f32", 800, 1700, 8.8, 0.902)
FOUND = [INT8, DYNAMIC, INT4, F32]


def kept(found: list[Tried]) -> list[str]:
    return [candidate.format for candidate in found if not candidate.reason]


def settings(**given: object) -> ExportSettings:
    return ExportSettings(model="m", data="d", devices=2, out="o", format="auto", **given)  # type: ignore[arg-type]


def test_what_loses_too_much_is_not_kept_however_fast() -> None:
    judged = judge(FOUND, floor=None, memory_mb=None)
    (fastest,) = [candidate for candidate in judged if candidate.format == "int4-dynamic"]
    assert fastest.reason == "accuracy 88.00%, at least 89.70% is wanted"


def test_of_what_is_as_fast_the_smallest_comes_first_and_one_for_old_interpreters_after_it() -> None:
    assert kept(judge(FOUND, floor=None, memory_mb=None)) == ["int8-dynamic", "int8"]


def test_a_lower_floor_lets_the_fastest_in() -> None:
    assert kept(judge(FOUND, floor=0.85, memory_mb=None))[0] == "int4-dynamic"


def test_a_format_that_is_right_everywhere_needs_no_second() -> None:
    assert kept(judge([INT8, F32], floor=None, memory_mb=None)) == ["int8"]


def test_what_does_not_fit_is_not_kept() -> None:
    judged = judge([Tried("f32", 800, 1_700_000, 1.0, 0.9), INT8], floor=None, memory_mb=1.0)
    assert kept(judged) == ["int8"]
    assert judged[1].reason == "it needs 1.7 MB and a device has 1"


def test_when_nothing_is_good_enough_the_sentence_says_why() -> None:
    with pytest.raises(PlanError, match=r"int8: accuracy 90.00%, at least 95.00% is wanted.*lower --floor"):
        judge(FOUND, floor=0.95, memory_mb=None)


def on(times: dict[str, float | None], candidate: Tried) -> Tried:
    """The candidate as devices measured it; None where one did not run it."""
    devices = tuple(
        Measured(name, name, "r/1", ms, "" if ms is not None else f"{name} refused it")
        for name, ms in times.items()
    )
    return replace(candidate, devices=devices, ms=max((m for m in times.values() if m), default=None))


def test_each_device_has_its_fastest_and_that_of_most_comes_first() -> None:
    found = [
        on({"pc": 9.0, "pi": 40.0, "pi-2": 41.0}, INT8),
        on({"pc": 8.9, "pi": 30.0, "pi-2": 31.0}, DYNAMIC),
        on({"pc": 5.0, "pi": 60.0, "pi-2": 61.0}, F32),
    ]
    judged = judge(found, floor=None, memory_mb=None)
    assert kept(judged) == ["int8-dynamic", "f32"], "f32 is right in the oldest interpreter too"
    assert judged[2].reason == "int8-dynamic or f32 is faster or smaller"


def test_of_formats_for_the_oldest_interpreter_the_slowest_device_chooses() -> None:
    found = [
        on({"pc": 9.0, "pi": 40.0}, INT8),
        on({"pc": 4.0, "pi": 30.0}, DYNAMIC),
        on({"pc": 5.0, "pi": 60.0}, F32),
    ]
    assert kept(judge(found, floor=None, memory_mb=None)) == ["int8-dynamic", "int8"]


def test_what_no_device_ran_is_not_kept_and_one_that_some_ran_is_for_them() -> None:
    found = [on({"pc": 2.0, "old": None}, DYNAMIC), on({"pc": None, "old": None}, F32)]
    judged = judge([*found, on({"pc": 3.0, "old": 7.0}, INT8)], floor=None, memory_mb=None)
    assert set(kept(judged)) == {"int8-dynamic", "int8"}
    assert judged[2].reason == "no device ran it (pc: pc refused it; old: old refused it)"


def test_every_candidate_is_kept_or_has_a_reason() -> None:
    judged = judge(FOUND, floor=None, memory_mb=None)
    assert sorted(candidate.format for candidate in judged) == sorted(c.format for c in FOUND)
    assert all(candidate.reason for candidate in judged if candidate.format not in kept(judged))


def test_auto_tries_them_all_and_measures_what_is_here_alone() -> None:
    assert settings().formats == AUTO_FORMATS
    with pytest.raises(UsageError, match="knows nothing of gpu: name the formats"):
        settings(target="gpu")
    with pytest.raises(UsageError, match="--on-device is where --format auto measures"):
        ExportSettings(model="m", data="d", devices=2, out="o", on_device=True)
    with pytest.raises(UsageError, match="devices of a fleet, and none was given"):
        export(settings(on_device=True), Silent())
    with pytest.raises(UsageError, match="--floor is what --format auto must hold"):
        ExportSettings(model="m", data="d", devices=2, out="o", floor=0.9)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_bundle_says_what_was_tried(teacher: Checkpoint, data_folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "toy-vit.safetensors", teacher)
    asked = ExportSettings(
        model=str(tmp_path / "toy-vit.safetensors"),
        data=str(data_folder),
        devices=2,
        out=str(tmp_path / "bundle"),
        format="auto",
        floor=0.2,
        share=0.9,
        widths="uniform",
        common_epochs=4,
        epochs=2,
        fusion_epochs=4,
        batch=32,
        rate=5e-3,
    )
    manifest = open_bundle(export(asked, Silent())).manifest
    tried = manifest.extra["tried"]
    assert isinstance(tried, list)
    assert sorted(row["format"] for row in tried) == sorted(AUTO_FORMATS)
    chosen = tuple(row["format"] for row in tried if not row["reason"])
    for submodel in manifest.submodels:
        assert submodel.formats == chosen
        assert any("tflite-runtime" in variant.runtimes for variant in submodel.variants)
