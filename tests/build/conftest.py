"""A data set small enough for seconds: six textures of 8 x 8 pixels that a shift leaves as they are."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edvit_tf.build.data import Dataset, Split
from edvit_tf.build.resume import Snapshots
from edvit_tf.vit.checkpoint import Checkpoint
from edvit_tf.vit.config import BlockConfig, ImageSize, ViTConfig

CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox")
IMAGE = ImageSize(8, 8, 1)
CONFIG = ViTConfig(IMAGE, 4, 16, 8, (BlockConfig(2, 32), BlockConfig(2, 32)), len(CLASSES))


def pictures(each: int, seed: int) -> Split:
    """`each` pictures of every class."""
    generator = np.random.default_rng(seed)
    row, column = np.mgrid[:8, :8]
    textures = (
        row // 2 % 2,
        column // 2 % 2,
        (row + column) // 2 % 2,
        0 * row,
        0 * row + 1,
        (row + column) % 2,
    )
    labels = np.repeat(np.arange(len(CLASSES)), each)
    bright = np.stack([textures[label] for label in labels])[..., np.newaxis]
    images = 130 * bright + generator.integers(0, 110, bright.shape)
    return Split(images.astype(np.uint8), labels.astype(np.int64))


class Eager(Snapshots):
    """Keeps every epoch."""

    def keep(self, *state: object) -> None:
        self._next = 0.0
        super().keep(*state)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return Dataset("toys", CLASSES, pictures(40, 1), pictures(12, 2), "made up", mirrored=False)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures as PNG files in class folders under train/, val/ and test/."""
    root = tmp_path_factory.mktemp("toys")
    for part, each, seed in (("train", 40, 1), ("val", 12, 2), ("test", 12, 3)):
        split = pictures(each, seed)
        for number, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            folder = root / part / CLASSES[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(folder / f"{number:03}.png")
    return root


@pytest.fixture(scope="session")
def teacher(dataset: Dataset) -> Checkpoint:
    """A teacher of that data, trained for a few seconds."""
    from edvit_tf.build.progress import Silent
    from edvit_tf.build.teacher import TeacherSettings, train_teacher
    from edvit_tf.build.training import Schedule

    settings = TeacherSettings(seed=3, schedule=Schedule(epochs=12, batch=32, rate=4e-3))
    return train_teacher(CONFIG, dataset, settings, Silent())
