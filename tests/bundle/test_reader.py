"""A bundle on the disk: whatever is not as its manifest says is found before anything is used."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edvit_tf.bundle import files
from edvit_tf.bundle.codec import parse
from edvit_tf.bundle.reader import open_bundle
from edvit_tf.bundle.vector import Vector, load_vector, save_vector
from edvit_tf.bundle.writer import write_manifest
from edvit_tf.errors import BundleError
from tests.bundle.toy import make_manifest

FLATBUFFER = "submodels/submodel-0.int8.tflite"


def refusal(folder: Path) -> BundleError:
    with pytest.raises(BundleError) as raised:
        open_bundle(folder)
    assert raised.value.message.endswith(".")
    assert "\n" not in raised.value.message
    return raised.value


def test_a_whole_bundle_opens(bundle: Path) -> None:
    opened = open_bundle(str(bundle))
    assert opened.path == bundle
    assert opened.manifest_bytes == (bundle / "manifest.json").read_bytes()
    assert opened.manifest == parse(opened.manifest_bytes)
    assert opened.file(FLATBUFFER).read_bytes() == f"TFL3 {FLATBUFFER}".encode()
    assert opened.vector(opened.manifest.submodels[0].variants[0]).image.shape == (8, 8, 1)
    assert not opened.has_signature


def test_a_file_that_the_manifest_does_not_name_is_not_given_out(bundle: Path) -> None:
    opened = open_bundle(bundle)
    for name in ("report.json", "../bundle/fusion.tflite", "manifest.json", "none"):
        with pytest.raises(BundleError) as raised:
            opened.file(name)
        assert raised.value.code == "bundle.unlisted"


def every_file(bundle: Path) -> list[str]:
    return [entry.file for entry in open_bundle(bundle).manifest.every_file()]


def test_one_changed_byte_in_any_file_is_found(bundle: Path) -> None:
    for name in every_file(bundle):
        path = bundle / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        error = refusal(bundle)
        assert error.code == "bundle.hash"
        assert name in error.message
        path.write_bytes(content)


def test_any_file_cut_short_or_lost_is_found(bundle: Path) -> None:
    for name in every_file(bundle):
        path = bundle / name
        content = path.read_bytes()
        path.write_bytes(content[:-1])
        error = refusal(bundle)
        assert (error.code, name in error.message) == ("bundle.size", True)
        path.unlink()
        error = refusal(bundle)
        assert (error.code, name in error.message) == ("bundle.missing_file", True)
        path.write_bytes(content)
    open_bundle(bundle)


def test_one_changed_byte_in_the_manifest_never_passes_unseen(bundle: Path) -> None:
    """Either the bundle is refused, or the byte belongs to a value that nothing can be held against."""
    path = bundle / "manifest.json"
    content = path.read_bytes()
    digest = json.loads(content)["fusion"]["sha256"].encode()
    place = content.index(digest)
    path.write_bytes(
        content[:place] + (b"0" if content[place : place + 1] != b"0" else b"1") + content[place + 1 :]
    )
    assert refusal(bundle).code == "bundle.hash"


@pytest.mark.parametrize(
    "name", ["notes.txt", "submodels/more.tflite", "new/file", ".hidden", "a\nb", "x/report.json"]
)
def test_a_file_too_many_is_found(bundle: Path, name: str) -> None:
    path = bundle / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    error = refusal(bundle)
    assert error.code == "bundle.extra_file"
    assert "remove it" in error.message


def test_reports_and_the_signature_may_lie_beside_the_manifest(bundle: Path) -> None:
    (bundle / "report.html").write_text("<p>")
    (bundle / "manifest.sig").write_bytes(b"\0" * 64)
    assert open_bundle(bundle).has_signature


@pytest.mark.parametrize("name", ["fusion.tflite", "submodels", "manifest.json", "report.json"])
def test_a_symbolic_link_is_refused_even_to_the_right_bytes(bundle: Path, tmp_path: Path, name: str) -> None:
    moved = tmp_path / "moved"
    (bundle / name).rename(moved)
    (bundle / name).symlink_to(moved)
    assert refusal(bundle).code in ("bundle.path", "bundle.extra_file")


@pytest.mark.parametrize("name", ["fusion.tflite", "manifest.json", "report.json"])
@pytest.mark.timeout(10)
def test_a_pipe_is_refused_and_not_waited_for(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    assert refusal(bundle).code == "bundle.path"


def test_a_folder_where_a_file_belongs(bundle: Path) -> None:
    (bundle / "fusion.tflite").unlink()
    (bundle / "fusion.tflite").mkdir()
    assert refusal(bundle).code == "bundle.path"
    (bundle / "fusion.tflite" / "x").write_text("x")
    assert refusal(bundle).code == "bundle.extra_file"


def test_a_file_where_a_folder_belongs(bundle: Path) -> None:
    shutil.rmtree(bundle / "baselines")
    assert refusal(bundle).code == "bundle.missing_file"
    (bundle / "baselines").write_text("x")
    assert refusal(bundle).code == "bundle.extra_file"


@pytest.mark.parametrize("path", ["none", "file"])
def test_no_bundle_there(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("x")
    error = refusal(tmp_path / path)
    assert error.code == "bundle.missing"
    assert "edvit-tf export" in error.message


def test_a_folder_without_a_manifest(tmp_path: Path) -> None:
    error = refusal(tmp_path)
    assert error.code == "bundle.missing_file"
    assert "manifest.json" in error.message


def test_a_manifest_too_large_is_not_read_whole(bundle: Path) -> None:
    with (bundle / "manifest.json").open("wb") as file:
        file.truncate(10**12)  # sparse: reading it would take a terabyte of memory
    assert refusal(bundle).code == "bundle.limit"


def test_the_number_of_files_is_bounded(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST_NUMBER_OF_FILES", 5)
    assert refusal(bundle).code == "bundle.limit"


def rewrite(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()
    write_manifest(bundle, make_manifest())


NOT_VECTORS: dict[str, Callable[[Path], object]] = {
    "no safetensors": lambda path: path.write_bytes(b"hello"),
    "empty": lambda path: path.write_bytes(b""),
    "a header beyond the end": lambda path: path.write_bytes(b"\xff" * 7 + b"\x7f{}"),
    "another picture size": lambda path: save_vector(path, vector(image=(4, 4, 1))),
    "another feature": lambda path: save_vector(path, vector(feature=4)),
    "other logits": lambda path: save_vector(path, vector(logits=4)),
}


def vector(image: tuple[int, ...] = (8, 8, 1), feature: int = 8, logits: int = 3) -> Vector:
    return Vector(np.zeros(image, np.uint8), np.ones(feature, np.float32), np.ones(logits, np.float32))


@pytest.mark.parametrize("kind", NOT_VECTORS)
def test_a_test_vector_that_is_none_is_refused_though_its_hash_is_right(bundle: Path, kind: str) -> None:
    NOT_VECTORS[kind](bundle / "vectors/submodel-1.f32.safetensors")
    with pytest.raises(BundleError) as raised:
        rewrite(bundle)
    assert raised.value.code == "bundle.vector"
    assert not (bundle / "manifest.json").exists()


def test_a_test_vector_comes_back_and_its_bytes_are_the_same_each_time(tmp_path: Path) -> None:
    first = vector()
    for name in ("a", "b"):
        save_vector(tmp_path / name, first)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = load_vector(tmp_path / "a")
    for name in ("image", "feature", "logits"):
        assert np.array_equal(getattr(again, name), getattr(first, name))
        assert getattr(again, name).dtype == getattr(first, name).dtype


@pytest.mark.parametrize(
    "wrong",
    [
        Vector(np.zeros((8, 8, 1), np.float32), np.ones(8, np.float32), np.ones(3, np.float32)),
        Vector(np.zeros((8, 8), np.uint8), np.ones(8, np.float32), np.ones(3, np.float32)),
        Vector(np.zeros((8, 8, 1), np.uint8), np.ones(8), np.ones(3, np.float32)),
        Vector(np.zeros((8, 8, 1), np.uint8), np.full(8, np.nan, np.float32), np.ones(3, np.float32)),
        Vector(np.zeros((8, 8, 1), np.uint8), np.ones(8, np.float32), np.ones(0, np.float32)),
    ],
    ids=["image f32", "image 2-D", "feature f64", "feature NaN", "no logits"],
)
def test_a_wrong_test_vector_is_not_written(tmp_path: Path, wrong: Vector) -> None:
    with pytest.raises(BundleError, match="make the bundle again"):
        save_vector(tmp_path / "vector", wrong)
    assert not (tmp_path / "vector").exists()


def test_a_test_vector_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        load_vector(tmp_path / "none")
