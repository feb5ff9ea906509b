import gzip
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edvit_tf.build.data import (
    Dataset,
    Skipped,
    Split,
    class_names,
    fashion_mnist,
    hold_out,
    load,
    load_test,
    long_tail,
    mean_and_deviation,
)
from edvit_tf.build.data.idx import read, read_idx
from edvit_tf.errors import DataError, UsageError
from edvit_tf.vit.config import ImageSize
from tests.build.conftest import CLASSES, IMAGE

STEMS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def small_copy(folder: Path, *, packed: bool = True) -> Path:
    """Fashion-MNIST's four files with 4 training and 1 test picture of each class."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, each in (("train", 4), ("t10k", 1)):
        labels = np.tile(np.arange(10, dtype=np.uint8), each)
        images = np.arange(len(labels), dtype=np.uint8)[:, None, None] * np.ones((1, 28, 28), np.uint8)
        for stem, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            if packed:
                (folder / f"{stem}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                (folder / stem).write_bytes(idx(array))
    return folder


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No copy anywhere, and no way to fetch one."""
    monkeypatch.delenv("EDVIT_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", Path("/nowhere/fashion-mnist"))
    monkeypatch.setattr(fashion_mnist, "_MIRROR", "http://127.0.0.1:9/")  # nobody listens there
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


class TestWhereFashionMnistComesFrom:
    def test_the_order(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        keras = small_copy(tmp_path / "keras" / "datasets" / "fashion-mnist")
        assert fashion_mnist.locate() == fashion_mnist.Found(keras, f"Keras's cache ({keras})")
        debian = small_copy(tmp_path / "debian")
        monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", debian)
        assert fashion_mnist.locate().origin == f"Debian package dataset-fashion-mnist ({debian})"
        given = small_copy(tmp_path / "given", packed=False)
        monkeypatch.setenv("EDVIT_DATA", str(given))
        assert fashion_mnist.locate().origin == f"EDVIT_DATA ({given})"
        (given / STEMS[3]).unlink()
        assert fashion_mnist.locate().folder == debian

    def test_nowhere_is_one_sentence_that_says_what_to_do(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(DataError, match=r"Keras: .*; no apt-get here\): put its four files") as caught:
            fashion_mnist.locate()
        assert "set EDVIT_DATA" in caught.value.message
        assert "\n" not in caught.value.message
        assert capsys.readouterr().out == ""  # standard output is for answers

    def test_a_download_is_held_against_its_checksum(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="wrong checksum"):
            fashion_mnist.check_contents(small_copy(tmp_path / "copy"))

    def test_the_debian_package_is_unpacked_into_the_cache(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commands = self._debian(monkeypatch, failures=0)
        source = fashion_mnist.locate()
        assert source.folder == tmp_path / "cache" / "edvit-tf" / "fashion-mnist" / "debian"
        assert source.origin.startswith("Debian package dataset-fashion-mnist, unpacked (")
        assert [command[0] for command in commands] == ["apt-get", "dpkg"]
        assert sorted(entry.name for entry in source.folder.parent.iterdir()) == ["debian"]
        commands.clear()
        assert fashion_mnist.locate().folder == source.folder  # the second time nothing is run
        assert commands == []

    def test_without_package_lists_private_ones_are_fetched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        commands = self._debian(monkeypatch, failures=1)
        fashion_mnist.locate()
        verbs = [next(word for word in command[1:] if not word.startswith("-")) for command in commands[:3]]
        assert verbs == ["download", "update", "download"]
        assert all("Dir::State::lists=" in " ".join(command) for command in commands[1:3])

    @staticmethod
    def _debian(monkeypatch: pytest.MonkeyPatch, failures: int) -> list[list[str]]:
        """Stand in for apt-get and dpkg; the first `failures` downloads fail."""
        commands: list[list[str]] = []
        monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
        monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", Path("/usr/share/datasets/none-such"))

        def run(command: list[str], *, cwd: Path, **_: object) -> subprocess.CompletedProcess[str]:
            commands.append(command)
            if command[0] == "dpkg":
                small_copy(Path(command[-1]) / "usr" / "share" / "datasets" / "none-such")
            elif "download" in command:
                if sum("download" in other for other in commands) <= failures:
                    return subprocess.CompletedProcess(command, 100, "", "E: Unable to locate package\n")
                (cwd / "dataset-fashion-mnist_1_all.deb").touch()
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr("subprocess.run", run)
        return commands


class TestFashionMnist:
    @pytest.fixture(autouse=True)
    def copy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EDVIT_DATA", str(small_copy(tmp_path / "given")))

    def test_splits(self) -> None:
        dataset = load("fashion_mnist", seed=1)
        assert (len(dataset.train), len(dataset.validation)) == (30, 10)
        assert np.bincount(dataset.validation.labels).tolist() == [1] * 10
        shown = np.concatenate([dataset.train.images, dataset.validation.images])[:, 0, 0, 0]
        assert sorted(shown) == list(range(40))
        assert dataset.image == ImageSize(28, 28, 1)
        assert dataset.mirrored
        assert dataset.origin.startswith("EDVIT_DATA (")
        assert class_names("fashion_mnist") == dataset.classes

    def test_the_seed_decides_the_split(self) -> None:
        first, again, other = (load("fashion_mnist", seed=seed).validation.images for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_the_test_split_is_the_other_file(self) -> None:
        test, classes = load_test("fashion_mnist", seed=1)
        assert test.labels.tolist() == list(range(10))
        assert classes[9] == "Ankle boot"

    def test_another_size_is_prepared(self) -> None:
        assert load("fashion_mnist", seed=1, image=ImageSize(14, 14, 3)).train.images.shape == (30, 14, 14, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an IDX file"),
        (b"\x00\x00\x09\x01" + bytes(20), "is not an IDX file"),
        (idx(np.zeros((2, 3), np.uint8)), "is not an IDX file"),
        (idx(np.zeros(5, np.uint8))[:-1], "does not hold"),
        (idx(np.zeros(5, np.uint8)) + b"\x00", "does not hold"),
    ],
)
def test_broken_idx_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "labels-idx1-ubyte"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(file, dimensions=1)
    packed = tmp_path / "labels-idx1-ubyte.gz"
    packed.write_bytes(gzip.compress(idx(np.zeros(50, np.uint8)))[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(packed, dimensions=1)


def _fewer_labels(folder: Path) -> None:
    (folder / f"{STEMS[1]}.gz").write_bytes(gzip.compress(idx(np.zeros(39, np.uint8))))


def _a_label_too_high(folder: Path) -> None:
    (folder / f"{STEMS[1]}.gz").write_bytes(gzip.compress(idx(np.full(40, 10, np.uint8))))


@pytest.mark.parametrize(
    ("harm", "message"), [(_fewer_labels, "40 images but 39 labels"), (_a_label_too_high, "labels above 9")]
)
def test_files_that_do_not_fit_each_other(tmp_path: Path, harm: Callable[[Path], None], message: str) -> None:
    folder = small_copy(tmp_path / "copy")
    harm(folder)
    with pytest.raises(DataError, match=message):
        read(folder, "train", fashion_mnist.CLASSES)


class TestFolders:
    def test_given_splits_are_used(self, data_folder: Path) -> None:
        dataset = load(data_folder, seed=1)
        assert dataset.classes == CLASSES
        assert (len(dataset.train), len(dataset.validation)) == (240, 72)
        assert dataset.image == IMAGE
        assert not dataset.mirrored
        assert len(load_test(data_folder, seed=1)[0]) == 72

    def test_without_splits_three_are_held_apart(self, data_folder: Path) -> None:
        folder = data_folder / "train"
        dataset = load(folder, seed=5)
        test, classes = load_test(folder, seed=5)
        assert classes == CLASSES
        parts = [dataset.train.images, dataset.validation.images, test.images]
        assert [len(part) for part in parts] == [192, 24, 24]
        seen = [picture.tobytes() for part in parts for picture in part]
        assert len(set(seen)) == 240

    def test_pictures_are_brought_to_the_size_asked_for(self, data_folder: Path) -> None:
        dataset = load(data_folder, seed=1, image=ImageSize(4, 6, 3))
        assert dataset.train.images.shape[1:] == dataset.validation.images.shape[1:] == (4, 6, 3)

    def test_one_class_is_too_few(self, tmp_path: Path) -> None:
        (tmp_path / "ant").mkdir()
        with pytest.raises(DataError, match="1 of at least two classes"):
            load(tmp_path, seed=1)

    def test_an_empty_class_is_named(self, tmp_path: Path) -> None:
        for name in ("ant", "bee"):
            (tmp_path / name).mkdir()
        with pytest.raises(DataError, match="ant has no pictures"):
            load(tmp_path, seed=1)

    def test_too_few_pictures_to_hold_out(self, tmp_path: Path) -> None:
        for name in ("ant", "bee"):
            (tmp_path / name).mkdir()
            for number in range(2):
                Image.new("L", (4, 4)).save(tmp_path / name / f"{number}.png")
        with pytest.raises(DataError, match="class ant has fewer than three pictures"):
            load(tmp_path, seed=1)

    def test_unreadable_pictures_are_counted_and_the_first_is_named(self, tmp_path: Path) -> None:
        for part in ("train", "val", "test"):
            for name in ("ant", "bee"):
                folder = tmp_path / part / name
                folder.mkdir(parents=True)
                for number in range(3):
                    Image.new("L", (4, 4)).save(folder / f"{number}.png")
        (tmp_path / "train" / "ant" / "7.png").write_bytes(b"no picture")
        (tmp_path / "train" / "bee" / "8.jpg").write_bytes(b"")
        with pytest.raises(DataError, match=r"2 of 8 files cannot be read, the first: .*7\.png"):
            load(tmp_path, seed=1)

    def test_another_set_of_classes_for_validation(self, tmp_path: Path) -> None:
        for folder in ("train/ant", "train/bee", "val/ant", "val/cow"):
            (tmp_path / folder).mkdir(parents=True)
            for number in range(4):
                Image.new("L", (4, 4)).save(tmp_path / folder / f"{number}.png")
        with pytest.raises(DataError, match="has other classes than"):
            load(tmp_path, seed=1)

    def test_no_such_folder(self) -> None:
        with pytest.raises(DataError, match=r"neither a folder .* nor a known data set \(fashion_mnist, "):
            load("/nowhere/at/all", seed=1)


def test_every_class_keeps_and_gives_some() -> None:
    labels = np.repeat([0, 1, 2], [2, 30, 5])
    kept, held = hold_out(labels, 1)
    assert np.bincount(labels[held]).tolist() == [1, 3, 1]
    assert sorted([*kept, *held]) == list(range(37))


def test_mean_and_deviation_are_of_each_channel() -> None:
    images = np.zeros((4, 2, 2, 2), np.uint8)
    images[:2, ..., 0] = 10
    assert mean_and_deviation(images) == ((5.0, 0.0), (5.0, 1.0))


class TestDecodedPictures:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for part in ("train", "val", "test"):
            for shade, name in ((40, "ant"), (200, "bee")):
                (tmp_path / part / name).mkdir(parents=True)
                for number in range(4):
                    Image.new("L", (4, 4), shade + number).save(tmp_path / part / name / f"{number}.png")
        return tmp_path

    def test_one_broken_file_is_skipped_and_named(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (folder / "train" / "ant" / "1.png").write_bytes(b"no picture")
        dataset = load(folder, seed=1)
        assert dataset.counts.tolist() == [3, 4]
        assert dataset.train.images[:, 0, 0, 0].tolist() == [40, 42, 43, 200, 201, 202, 203]
        assert [Path(item.file).name for item in dataset.skipped] == ["1.png"]
        assert "ant/1.png" in caplog.text
        assert load(folder, seed=1).skipped == dataset.skipped  # from the cache, too

    def test_pictures_are_mapped_and_decoded_once(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = load(folder, seed=1).train.images
        assert not first.flags.writeable
        monkeypatch.setattr("edvit_tf.build.data.items.open_picture", None)
        np.testing.assert_array_equal(load(folder, seed=1).train.images, first)

    def test_a_changed_file_is_decoded_again(self, folder: Path) -> None:
        load(folder, seed=1)
        Image.new("L", (4, 4), 90).save(folder / "train" / "ant" / "0.png", compress_level=0)
        assert load(folder, seed=1).train.images[0, 0, 0, 0] == 90

    def test_an_entry_that_was_cut_short_is_made_again(self, folder: Path, tmp_path: Path) -> None:
        whole = np.array(load(folder, seed=1).train.images)
        for file in (tmp_path / "cache").rglob("images.bin"):
            file.write_bytes(b"short")
        np.testing.assert_array_equal(load(folder, seed=1).train.images, whole)


def test_the_summary_names_the_smallest_and_the_largest_class() -> None:
    images = np.zeros((6, 1, 1, 1), np.uint8)
    even = Split(images, np.array([0, 0, 0, 1, 1, 1]))
    odd = Split(images, np.array([0, 1, 1, 1, 1, 1]))
    dataset = Dataset("made", ("a", "b"), even, even, "made up", mirrored=False)
    assert dataset.summary() == "6 pictures to train on, 6 to validate: made up"
    dataset = Dataset("made", ("a", "b"), odd, even, "made up", False, (Skipped("c.png", "broken"),))
    assert dataset.summary().endswith("made up; 1 of a (the fewest) to 5 of b; skipped files: 1")


def test_a_long_tail_falls_exponentially_and_keeps_one_of_each() -> None:
    labels = np.repeat(np.arange(3), 100)
    split = Split(np.arange(300, dtype=np.int64).astype(np.uint8).reshape(-1, 1, 1, 1), labels)
    dataset = Dataset("made", ("a", "b", "c"), split, split, "made up", mirrored=False)
    assert long_tail(dataset, 100, seed=1).counts.tolist() == [100, 10, 1]
    assert long_tail(dataset, 1, seed=1).counts.tolist() == [100, 100, 100]
    with pytest.raises(UsageError, match="1 or more"):
        long_tail(dataset, 0.5, seed=1)
