"""Small copies of the registry's data sets in their original layouts."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from edvit_tf.build.data import caltech256, cifar10, class_names, load, load_test, mnist
from edvit_tf.build.data.archives import Archive, fetch, unpacked
from edvit_tf.errors import DataError, UsageError
from edvit_tf.vit.config import ImageSize


@pytest.fixture(autouse=True)
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as EDVIT_DATA, and an empty cache."""
    folder = tmp_path / "given"
    folder.mkdir()
    monkeypatch.setenv("EDVIT_DATA", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and where it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = Thread(target=serving.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{serving.server_port}/"
        serving.shutdown()
        thread.join()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def mnist_copy(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for part, each in (("train", 3), ("t10k", 1)):
        labels = np.tile(np.arange(10, dtype=np.uint8), each)
        images = labels[:, None, None] * np.ones((1, 28, 28), np.uint8)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))


class TestMnist:
    def test_a_local_copy(self, given: Path) -> None:
        mnist_copy(given / "mnist")
        dataset = load("mnist", seed=1)
        assert (len(dataset.train), len(dataset.validation)) == (20, 10)
        assert not dataset.mirrored
        np.testing.assert_array_equal(dataset.train.images[:, 5, 5, 0], dataset.train.labels)
        assert load_test("mnist", seed=1)[0].labels.tolist() == list(range(10))

    def test_a_download_is_kept(
        self, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        folder, url = server
        mnist_copy(folder)
        files = [Archive(url + path.name, "sha256", sha256(path)) for path in folder.iterdir()]
        monkeypatch.setattr(mnist, "FILES", files)
        origin = load("mnist", seed=1).origin
        assert origin == f"downloaded ({tmp_path / 'cache' / 'edvit-tf' / 'mnist'})"
        monkeypatch.setattr(mnist, "FILES", ())  # the second time nothing is fetched
        assert load("mnist", seed=1).origin == origin


def batch(each: int) -> bytes:
    """Records of CIFAR-10's binary version: red is 10 × the label in the first row, green 1 and blue 2."""
    planes = np.zeros((10 * each, 3, 32, 32), np.uint8)
    labels = np.tile(np.arange(10, dtype=np.uint8), each)
    planes[:, 0, 0] = 10 * labels[:, None]
    planes[:, 1], planes[:, 2] = 1, 2
    return np.hstack([labels[:, None], planes.reshape(len(labels), -1)]).tobytes()


def cifar_copy(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in cifar10.TRAIN:
        (folder / name).write_bytes(batch(1))
    (folder / "test_batch.bin").write_bytes(batch(2))
    return folder


class TestCifar10:
    def test_the_binary_version(self, given: Path) -> None:
        cifar_copy(given / "cifar-10-batches-bin")
        dataset = load("cifar10", seed=1)
        assert (len(dataset.train), len(dataset.validation)) == (40, 10)
        assert dataset.mirrored
        np.testing.assert_array_equal(dataset.train.images[:, 0, 31, 0], 10 * dataset.train.labels)
        assert dataset.train.images[0, 1, 0].tolist() == [0, 1, 2]
        test, classes = load_test("cifar10", seed=1)
        assert len(test) == 20
        assert classes == class_names("cifar10") == cifar10.CLASSES

    def test_the_original_archive(self, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with tarfile.open(given / "cifar-10-binary.tar.gz", "w:gz") as tar:
            tar.add(cifar_copy(tmp_path / "made"), "cifar-10-batches-bin")
        with pytest.raises(DataError, match="wrong checksum"):
            load("cifar10", seed=1)
        digest = sha256(given / "cifar-10-binary.tar.gz")
        monkeypatch.setattr(cifar10, "ARCHIVE", replace(cifar10.ARCHIVE, digest=digest))
        assert load("cifar10", seed=1).counts.tolist() == [4] * 10

    def test_class_folders(self, given: Path) -> None:
        for part in ("train", "test"):
            for shade, label in enumerate(cifar10.CLASSES):
                folder = given / "cifar10" / part / label
                folder.mkdir(parents=True)
                for number in range(3):
                    Image.new("RGB", (32, 32), (shade, number, 0)).save(folder / f"{number}.png")
        dataset = load("cifar10", seed=1)
        assert dataset.image == ImageSize(32, 32, 3)
        assert dataset.mirrored
        assert dataset.counts.tolist() == [2] * 10

    @pytest.mark.parametrize(
        ("content", "message"), [(batch(1)[:-1], "cut short"), (b"\x0a" + bytes(3072), "labels above 9")]
    )
    def test_broken_batches(self, given: Path, content: bytes, message: str) -> None:
        (cifar_copy(given / "cifar-10-batches-bin") / "data_batch_5.bin").write_bytes(content)
        with pytest.raises(DataError, match=message):
            load("cifar10", seed=1)


class TestCaltech256:
    def test_the_layout(self, given: Path) -> None:
        for name in ("001.ak47", "002.american-flag", "257.clutter"):
            folder = given / "256_ObjectCategories" / name
            folder.mkdir(parents=True)
            for number in range(1, 21):
                Image.new("RGB", (20 + number, 30), (number, 0, 0)).save(
                    folder / f"{name[:3]}_{number:04}.jpg"
                )
        (given / "256_ObjectCategories" / "001.ak47" / "RENAME2").write_text("not a picture")
        dataset = load("caltech256", seed=1, image=ImageSize(8, 8, 3))
        assert dataset.classes == class_names("caltech256") == ("ak47", "american-flag")
        assert dataset.train.images.shape == (32, 8, 8, 3)
        assert len(load_test("caltech256", seed=1, image=dataset.image)[0]) == 4

    def test_the_archive_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            caltech256, "ARCHIVE", Archive("http://127.0.0.1:9/256_ObjectCategories.tar", "md5", "0")
        )
        with pytest.raises(DataError, match=r"put 256_ObjectCategories\.tar in a folder and set EDVIT_DATA"):
            load("caltech256", seed=1)


class TestArchives:
    def test_a_wrong_sum_leaves_nothing(self, server: tuple[Path, str], tmp_path: Path) -> None:
        folder, url = server
        (folder / "a.tar").write_bytes(b"other")
        with pytest.raises(DataError, match="wrong checksum"):
            unpacked("a", Archive(url + "a.tar", "sha256", "0"))
        assert list((tmp_path / "cache" / "edvit-tf").iterdir()) == []

    def test_a_missing_file_says_what_to_do(self, server: tuple[Path, str], tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"could not be downloaded .*set EDVIT_DATA"):
            fetch(Archive(server[1] + "none.tar", "sha256", "0"), tmp_path)

    def test_no_member_leaves_the_folder(self, given: Path, tmp_path: Path) -> None:
        with tarfile.open(given / "evil.tar", "w") as tar:
            member = tarfile.TarInfo("../../escaped")
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
        with pytest.raises(DataError, match="cannot be unpacked"):
            unpacked("evil", Archive("http://127.0.0.1:9/evil.tar", "sha256", sha256(given / "evil.tar")))
        assert not list(tmp_path.rglob("escaped"))


class TestLongTail:
    def test_by_its_source(self, given: Path) -> None:
        cifar_copy(given / "cifar-10-batches-bin")
        whole, tail = load("cifar10", seed=1), load("cifar10?long-tail=4", seed=1)
        assert whole.counts.tolist() == [4] * 10
        assert tail.counts[[0, 9]].tolist() == [4, 1]
        assert class_names("cifar10?long-tail=4") == whole.classes
        assert len(load_test("cifar10?long-tail=4", seed=1)[0]) == 20

    @pytest.mark.parametrize("option", ["long-tail=much", "long-tail", "tail=5", "", "long-tail=nan"])
    def test_other_options(self, given: Path, option: str) -> None:
        cifar_copy(given / "cifar-10-batches-bin")
        with pytest.raises(UsageError, match="long-tail"):
            load(f"cifar10?{option}", seed=1)
