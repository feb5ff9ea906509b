"""Pictures: from a file to the uint8 array that every sub-model takes.

Training and inference call the same two functions, so that a model never meets a picture prepared otherwise
than those it learnt from.
"""

import struct
from io import BytesIO
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps

from edvit_tf.errors import DataError

# Formats that Pillow decodes by itself. EPS, for one, would start another program.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
LARGEST_PIXELS = 64 * 1024 * 1024

# What Pillow's decoders raise on broken files.
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, MemoryError)
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class PictureSize(Protocol):
    """A model's input: `InputSpec` of a manifest and `ImageSize` of a ViT are such."""

    @property
    def height(self) -> int:
        """Rows."""

    @property
    def width(self) -> int:
        """Columns."""

    @property
    def channels(self) -> int:
        """1 for grey, 3 for red, green and blue."""


def open_picture(path: str | Path) -> Image.Image:
    """Read and decode a picture; of an animation, the first frame.

    Raises:
        DataError: there is no such file, it is no picture of a known format, it is broken or cut short, or it
            has more than 64 megapixels (a few kilobytes can claim any size).
    """
    source = Path(path)
    if not source.is_file():
        raise DataError(f"There is no picture at {source}: give the path of an image file.")
    return _decoded(source, str(source))


def read_picture(data: bytes) -> Image.Image:
    """Decode a picture that is not in a file; what and why not as `open_picture`.

    Raises:
        DataError: as `open_picture`.
    """
    return _decoded(BytesIO(data), "what was sent")


def _decoded(source: Path | BytesIO, what: str) -> Image.Image:
    try:
        with Image.open(source, formats=FORMATS) as image:
            _check_size(image, what)
            image.load()
            return image
    except _BOMB:
        raise _too_large(what) from None
    except (*_BROKEN, struct.error):
        raise DataError(
            f"{what} is not a picture that can be read: give a whole file of {', '.join(FORMATS)}."
        ) from None


def prepare(image: Image.Image, size: PictureSize) -> np.ndarray:
    """The picture as a model takes it: uint8 [height, width, channels].

    It is turned upright by its EXIF orientation; 16 bits become 8; what is transparent becomes white; colours
    become grey or the reverse; it is resized (bilinear, with antialiasing) until it just covers the model's
    size and cropped to the centre. A picture that has the size and channels already keeps every byte.

    Raises:
        DataError: a picture of floating-point numbers, of a colour space without a way to RGB, or without
            pixels.
    """
    if 0 in image.size:
        raise DataError("The picture has no pixels: give one that has.")
    try:
        upright = ImageOps.exif_transpose(image)
    except (*_BROKEN, struct.error):
        upright = image  # a broken EXIF block says nothing about which side is up
    plain = _eight_bits(upright).convert("L" if size.channels == 1 else "RGB")
    if plain.size != (size.width, size.height):
        plain = ImageOps.fit(plain, (size.width, size.height), Image.Resampling.BILINEAR)
    return np.asarray(plain, np.uint8).reshape(size.height, size.width, size.channels).copy()


def _eight_bits(image: Image.Image) -> Image.Image:
    """The picture in a mode of 8 bits a channel, opaque."""
    if image.mode.startswith("I"):
        # Pillow's integer modes hold 16-bit greys: 65535 is white.
        greys = np.asarray(image).astype(np.int64)
        return Image.fromarray(((greys.clip(0, 65535) * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode == "F":
        raise DataError(
            "The picture holds floating-point numbers, whose white is unknown: save it with 8 bits."
        )
    try:
        if image.has_transparency_data:
            colours = image.convert("RGBA")
            white = Image.new("RGBA", colours.size, (255, 255, 255, 255))
            return Image.alpha_composite(white, colours).convert("RGB")
        return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")
    except ValueError:
        raise DataError(f"The picture's colours ({image.mode}) cannot be read: save it as RGB.") from None


def _check_size(image: Image.Image, what: str) -> None:
    if image.width * image.height > LARGEST_PIXELS:
        raise _too_large(what)


def _too_large(what: str) -> DataError:
    return DataError(f"{what} has more than {LARGEST_PIXELS >> 20} megapixels: give a smaller picture.")
