"""What a bundle classifies, as it lies in files: pictures, or sounds where its manifest specifies them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edvit_tf.bundle import picture, sound
from edvit_tf.bundle.manifest import InputSpec
from edvit_tf.errors import DataError


def read_sample(path: Path, spec: InputSpec) -> NDArray[np.uint8]:
    """The picture of a file: uint8 [height, width, channels].

    Raises:
        DataError: there is none, or it cannot be read.
        MissingPackage: sound, without the extra for it.
    """
    if spec.sound is None:
        return picture.prepare(picture.open_picture(path), spec)
    return sound.prepare_sound(sound.read_sound(path, spec.sound.sample_rate), spec.sound, spec)


def decode_sample(data: bytes, spec: InputSpec) -> NDArray[np.uint8]:
    """Do what `read_sample` does with what a file would hold; raises the same."""
    if spec.sound is None:
        return picture.prepare(picture.read_picture(data), spec)
    return sound.prepare_sound(sound.decode_sound(data, spec.sound.sample_rate), spec.sound, spec)


def find_samples(places: Iterable[Path], spec: InputSpec) -> list[Path]:
    """Resolve files and folders (searched to the bottom, sorted) to files of the kind the bundle takes.

    Raises:
        DataError: there is no such file or folder, or a folder without any.
    """
    kind, suffixes = ("picture", picture.SUFFIXES) if spec.sound is None else ("sound", sound.SUFFIXES)
    paths: list[Path] = []
    for place in places:
        if not place.is_dir():
            if not place.exists():
                raise DataError(f"there is no {kind} at {place}: give the path of a {kind} or a folder")
            paths.append(place)
            continue
        inside = sorted(path for path in place.rglob("*") if path.suffix.lower() in suffixes)
        if not inside:
            raise DataError(f"the folder {place} holds no {kind} ({', '.join(suffixes)})")
        paths += inside
    return paths
