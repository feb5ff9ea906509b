"""What a source hands out: pictures or sounds with their labels, not read before they are asked for."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edvit_tf.build.data.dataset import Skipped, Split
from edvit_tf.build.data.decoded import Piece, decoded
from edvit_tf.bundle.manifest import SoundSpec
from edvit_tf.bundle.picture import open_picture, prepare
from edvit_tf.bundle.sound import Samples, fitted, log_mel, read_sound, sound_length, specify, to_picture
from edvit_tf.errors import DataError, EdvitError
from edvit_tf.vit.config import ImageSize

CHUNK = 256
CLIPS = 64  # that are transformed at once
SOUND_IMAGE = ImageSize(40, 48, 1)  # of sound, where no model says otherwise
LONGEST_SECONDS, HIGHEST_RATE = 10.0, 48_000  # of a folder's clips, unless the data set says otherwise
_THREADS = 2


@dataclass(frozen=True, slots=True)
class Form:
    """What items are read as.

    Attributes:
        image: the size of the pictures; None for their own.
        sound: how sound becomes a picture; None where there is none.
        training: compute pictures of sound as training does, in TensorFlow; else as the aggregator does.
    """

    image: ImageSize | None
    sound: SoundSpec | None = None
    training: bool = True


class Items(Protocol):
    """What has not been read, and the index of the class of each, int64 [n]."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Indices into the classes."""

    def take(self, rows: NDArray[np.int64]) -> "Items":
        """Some of them."""

    def specify(self, image: ImageSize | None, sound: SoundSpec | None) -> SoundSpec | None:
        """How these become pictures: `sound` if it is given, else what suits them; None for pictures.

        Raises:
            DataError: `sound` is given and these are pictures.
        """

    def read(self, form: Form) -> tuple[Split, tuple[Skipped, ...]]:
        """Read all of them; those that cannot be read are left out and named.

        Raises:
            DataError: too many of them.
        """


@dataclass(frozen=True, slots=True)
class ArrayItems:
    """Pictures that lie in one array, uint8 [n, height, width, channels]."""

    classes: tuple[str, ...]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> "ArrayItems":
        """Some of them."""
        return ArrayItems(self.classes, self.images[rows], self.labels[rows])

    def specify(self, image: ImageSize | None, sound: SoundSpec | None) -> None:  # noqa: ARG002
        """No sound."""
        _refuse(sound)

    def read(self, form: Form) -> tuple[Split, tuple[Skipped, ...]]:
        """Bring them to the size asked for."""
        image = form.image
        if image is None or self.images.shape[1:] == (image.height, image.width, image.channels):
            return Split(self.images, self.labels), ()
        digest = hashlib.sha256(self.images.tobytes()).hexdigest()
        return decoded(("array", digest, image), self.labels, lambda: self._resized(image))

    def _resized(self, image: ImageSize) -> Iterator[Piece]:
        grey = self.images.shape[-1] == 1
        for picture in self.images:
            yield prepare(Image.fromarray(picture[..., 0] if grey else picture), image)


@dataclass(frozen=True, slots=True)
class PictureFiles:
    """Picture files and the class each belongs to."""

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> "PictureFiles":
        """Some of them."""
        return PictureFiles(self.classes, tuple(self.paths[row] for row in rows), self.labels[rows])

    def specify(self, image: ImageSize | None, sound: SoundSpec | None) -> None:  # noqa: ARG002
        """No sound."""
        _refuse(sound)

    def read(self, form: Form) -> tuple[Split, tuple[Skipped, ...]]:
        """Decode them, to the size of the first where none is asked for."""
        key = ("pictures", fingerprint(self.paths), form.image)
        return decoded(key, self.labels, lambda: self._pictures(form.image))

    def _pictures(self, image: ImageSize | None) -> Iterator[Piece]:
        size = image or self._first_size()

        def read(path: Path) -> Piece:
            try:
                return prepare(open_picture(path), size)
            except EdvitError as error:
                return Skipped(str(path), error.message)

        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(self.paths), CHUNK):  # so that no more than a chunk waits in memory
                yield from pool.map(read, self.paths[start : start + CHUNK])

    def _first_size(self) -> ImageSize:
        for path in self.paths:
            try:
                picture = open_picture(path)
            except EdvitError:
                continue
            return ImageSize(picture.height, picture.width, 1 if picture.mode in ("1", "L") else 3)
        return ImageSize(1, 1, 1)  # none can be read, which is said of each


@dataclass(frozen=True, slots=True)
class SoundFiles:
    """Sound files and the class each belongs to.

    Attributes:
        length: sample rate in Hz and seconds of a picture; None to look at the files for it.
        pieces: a file is cut into as many equal parts, each a picture of its own.
    """

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    length: tuple[int, float] | None = None
    pieces: int = 1

    def take(self, rows: NDArray[np.int64]) -> "SoundFiles":
        """Some of them."""
        paths = tuple(self.paths[row] for row in rows)
        return replace(self, paths=paths, labels=self.labels[rows])

    def specify(self, image: ImageSize | None, sound: SoundSpec | None) -> SoundSpec:
        """The specification given, or one for the length of these files."""
        return sound or specify(*(self.length or self._usual_length()), image or SOUND_IMAGE)

    def read(self, form: Form) -> tuple[Split, tuple[Skipped, ...]]:
        """Make a picture of each, or of each of its pieces."""
        image = form.image or SOUND_IMAGE
        spec = self.specify(image, form.sound)
        key = ("sound", fingerprint(self.paths), image, spec, self.pieces, form.training)
        labels = np.repeat(self.labels, self.pieces)
        return decoded(key, labels, lambda: self._pictures(spec, image, training=form.training))

    def _pictures(self, spec: SoundSpec, image: ImageSize, *, training: bool) -> Iterator[Piece]:
        def read(path: Path) -> list[Samples | Skipped]:
            try:
                parts = np.array_split(read_sound(path, spec.sample_rate), self.pieces)
            except DataError as error:
                return [Skipped(str(path), error.message)] * self.pieces
            return [fitted(part, spec, image) for part in parts]

        files = max(1, CLIPS // self.pieces)
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(self.paths), files):
                read_now = pool.map(read, self.paths[start : start + files])
                clips = [clip for clips in read_now for clip in clips]
                whole = [clip for clip in clips if not isinstance(clip, Skipped)]
                pictures = iter(_log_mels(whole, spec, image, training=training))
                for clip in clips:
                    yield clip if isinstance(clip, Skipped) else to_picture(next(pictures), image)

    def _usual_length(self) -> tuple[int, float]:
        """The most frequent rate, and the length that nine of ten files do not exceed."""
        rates: Counter[int] = Counter()
        lengths = []
        for path in self.paths:
            try:
                rate, seconds = sound_length(path)
            except DataError:
                continue  # which is said when it is read
            rates[rate] += 1
            lengths.append(seconds)
        if not lengths:
            return 16_000, 1.0
        rate = min(rates.most_common(1)[0][0], HIGHEST_RATE)
        return rate, min(max(float(np.quantile(lengths, 0.9)), 0.1), LONGEST_SECONDS)


def _log_mels(
    clips: list[Samples], spec: SoundSpec, image: ImageSize, *, training: bool
) -> NDArray[np.float64] | list[Samples]:
    if not training or not clips:
        return [log_mel(clip, spec, image) for clip in clips]
    from edvit_tf.build.data.spectrogram import log_mels

    return log_mels(np.stack(clips), spec, image)


def _refuse(sound: SoundSpec | None) -> None:
    if sound is not None:
        raise DataError("The model takes sound and the data is pictures: give the data it was trained on.")


def fingerprint(paths: tuple[Path, ...]) -> str:
    """What changes when any of these files does: a hash of names, sizes and times."""
    digest = hashlib.sha256()
    for path in paths:
        facts = path.stat()
        digest.update(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()
