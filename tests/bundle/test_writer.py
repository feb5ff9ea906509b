"""Writing a bundle: whole or not at all, and the same bytes for the same content."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from edvit_tf.bundle.reader import open_bundle
from edvit_tf.bundle.writer import new_bundle, write_manifest
from edvit_tf.errors import BundleError, UsageError
from tests.bundle.toy import fill, make_manifest, write_toy_bundle


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    assert contents(write_toy_bundle(tmp_path / "a")) == contents(write_toy_bundle(tmp_path / "b"))


def test_what_is_returned_is_what_was_written(tmp_path: Path) -> None:
    with new_bundle(tmp_path / "bundle") as folder:
        fill(folder, make_manifest())
        written = write_manifest(folder, make_manifest())
    opened = open_bundle(tmp_path / "bundle")
    assert opened.manifest == written
    assert {entry.file for entry in written.files} == {
        "baselines/single.int8.tflite",
        "baselines/teacher.f32.tflite",
        "fusion.safetensors",
        *(f"vectors/submodel-{i}.{f}.safetensors" for i in (0, 1) for f in ("f32", "int8")),
    }
    assert written.fusion.bytes == len(b"bytes of fusion.tflite")


def test_nothing_else_is_left_and_everyone_may_read_it(tmp_path: Path) -> None:
    write_toy_bundle(tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert stat.S_IMODE((tmp_path / "bundle").stat().st_mode) == 0o755


def test_the_folders_above_are_made(tmp_path: Path) -> None:
    assert open_bundle(write_toy_bundle(tmp_path / "deep" / "er" / "bundle")).manifest.name == "toy"


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_whatever_ends_the_work_early_leaves_nothing(tmp_path: Path, failure: type[BaseException]) -> None:
    def fail() -> None:
        with new_bundle(tmp_path / "bundle") as folder:
            fill(folder, make_manifest())
            raise failure

    with pytest.raises(failure):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_would_not_open_never_arrives(tmp_path: Path) -> None:
    def forget_a_file() -> None:
        with new_bundle(tmp_path / "bundle") as folder:
            fill(folder, make_manifest())
            write_manifest(folder, make_manifest())
            (folder / "fusion.tflite").unlink()

    def forget_the_manifest() -> None:
        with new_bundle(tmp_path / "bundle") as folder:
            fill(folder, make_manifest())

    for forget in (forget_a_file, forget_the_manifest):
        with pytest.raises(BundleError) as raised:
            forget()
        assert raised.value.code == "bundle.missing_file"
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "full folder", "file", "dangling link"])
def test_what_is_there_already_is_never_touched(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "bundle"
    if kind == "file":
        out.write_text("precious")
    elif kind == "dangling link":
        out.symlink_to(tmp_path / "nowhere")
    else:
        out.mkdir()
    if kind == "full folder":
        (out / "precious").write_text("precious")
    with pytest.raises(UsageError, match="exists already: choose another --out"), new_bundle(out):
        pytest.fail("the work must not begin")
    assert os.path.lexists(out)
    assert len(list(tmp_path.iterdir())) == 1


def test_what_comes_to_stand_there_meanwhile_is_not_touched_either(tmp_path: Path) -> None:
    out = tmp_path / "bundle"

    def overtaken() -> None:
        with new_bundle(out) as folder:
            fill(folder, make_manifest())
            write_manifest(folder, make_manifest())
            out.mkdir()

    with pytest.raises(UsageError, match="exists already"):
        overtaken()
    assert list(tmp_path.iterdir()) == [out]
    assert list(out.iterdir()) == []


def test_a_place_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="choose another folder"), new_bundle(tmp_path / "file" / "bundle"):
        pytest.fail("the work must not begin")


def test_a_manifest_that_names_a_file_that_was_not_made(tmp_path: Path) -> None:
    fill(tmp_path, make_manifest())
    (tmp_path / "submodels/submodel-1.int8.tflite").unlink()
    with pytest.raises(BundleError, match=r"submodel-1\.int8\.tflite") as raised:
        write_manifest(tmp_path, make_manifest())
    assert raised.value.code == "bundle.missing_file"


def test_a_manifest_that_does_not_hold_together_is_not_written(tmp_path: Path) -> None:
    fill(tmp_path, make_manifest())
    with pytest.raises(BundleError) as raised:
        write_manifest(tmp_path, replace(make_manifest(), classes=("Shirt", "Bag")))
    assert raised.value.code == "bundle.classes"
    assert not (tmp_path / "manifest.json").exists()
