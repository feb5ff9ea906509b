"""What the processes of one export share: the pictures, in files that are mapped, not copied."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.data import Dataset, Split


@dataclass(frozen=True, slots=True)
class Workspace:
    """A data set without the test split, in files of `folder`."""

    folder: Path
    name: str
    classes: tuple[str, ...]
    origin: str
    mirrored: bool

    @staticmethod
    def create(folder: Path, dataset: Dataset) -> "Workspace":
        """Write the splits of a data set."""
        workspace = Workspace(folder, dataset.name, dataset.classes, dataset.origin, dataset.mirrored)
        for part, split in (("train", dataset.train), ("validation", dataset.validation)):
            workspace.write(f"{part}_images", split.images)
            workspace.write(f"{part}_labels", split.labels)
        return workspace

    def dataset(self) -> Dataset:
        """The data set that was written."""
        return Dataset(
            self.name, self.classes, self.split("train"), self.split("validation"), self.origin, self.mirrored
        )

    def split(self, part: str) -> Split:
        """`train` or `validation`."""
        return Split(self.read(f"{part}_images"), self.read(f"{part}_labels"))

    def write(self, name: str, array: NDArray[np.generic]) -> None:
        """Keep an array."""
        np.save(self.folder / f"{name}.npy", array, allow_pickle=False)

    # What is read was written by `write`; only its writer knows the type.
    def read(self, name: str) -> NDArray:  # type: ignore[type-arg]
        """An array that was kept, mapped for reading."""
        array: NDArray = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)  # type: ignore[type-arg]
        return array
