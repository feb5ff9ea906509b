"""A picture on the wire: both sides of its codec.

Whoever asks has brought it to the model's size; whoever answers decodes it and never resizes.
"""

from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image, features

from edvit_tf.errors import DeviceError
from edvit_tf.rpc.edvit_pb2 import Picture

RAW, JPEG, WEBP = "raw", "jpeg", "webp"
NOT_DECODED = "device.picture"
# Pillow's name of each, and of what it needs for it.
_PILLOW = {JPEG: ("JPEG", "jpg"), WEBP: ("WEBP", "webp")}
# A second scan of a JPEG costs another pass over the picture, and takes hardly a byte.
_SCAN = b"\xff\xda"

# What Pillow's decoders raise on broken bytes.
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, MemoryError)


@dataclass(frozen=True, slots=True)
class Coding:
    """A codec and its quality from 1 to 100; None loses nothing, which JPEG cannot."""

    codec: str = RAW
    quality: int | None = None

    def __post_init__(self) -> None:
        if (self.codec == JPEG and self.quality is None) or (self.codec == RAW and self.quality is not None):
            raise ValueError(f"there is no coding {self.codec} of quality {self.quality}")

    def __str__(self) -> str:
        if self.codec == RAW:
            return RAW
        return f"{self.codec} lossless" if self.quality is None else f"{self.codec} {self.quality}"


EXACT = Coding()


@cache
def decodable() -> tuple[str, ...]:
    """The codecs beside raw that the Pillow installed here decodes."""
    return tuple(codec for codec, (_, feature) in _PILLOW.items() if features.check(feature))


def encode(image: np.ndarray, coding: Coding = EXACT) -> Picture:
    """A picture uint8 [height, width, channels], of 1 or 3 channels, as a message."""
    height, width, channels = image.shape
    picture = Picture(codec=coding.codec, height=height, width=width, channels=channels)
    if coding.codec == RAW:
        picture.data = image.tobytes()
        return picture
    pillow = Image.fromarray(image[:, :, 0] if channels == 1 else image)
    file = BytesIO()
    if coding.codec == JPEG:
        _save_jpeg(pillow, file, coding.quality)
    elif coding.quality is None:
        # The least effort: the most takes thirty times as long and gives a seventh less.
        pillow.convert("RGB").save(file, "WEBP", lossless=True, quality=0, method=0)
    else:
        pillow.convert("RGB").save(file, "WEBP", quality=coding.quality, method=0)
    picture.data = file.getvalue()
    return picture


def _save_jpeg(pillow: Image.Image, file: BytesIO, quality: int | None) -> None:
    # Colours are kept at full size: halved, as is usual, they cost what accuracy JPEG costs at all.
    options = {"quality": quality, "subsampling": 0}
    try:
        pillow.save(file, "JPEG", optimize=True, **options)
    except OSError:
        # Noise does not fit into the one buffer that Pillow gives an encoder which optimises.
        file.seek(0)
        file.truncate()
        pillow.save(file, "JPEG", **options)


def decode(picture: Picture, shape: tuple[int, int, int]) -> np.ndarray:
    """The picture uint8 of this shape [height, width, channels] that a message holds.

    Nothing is decoded that does not say first that it has the shape, so that memory and time are bounded by
    it.

    Raises:
        DeviceError: `device.picture`: another shape, an unknown codec, or bytes that are broken.
    """
    sent = (picture.height, picture.width, picture.channels)
    if sent != shape:
        raise _refused(f"the picture is {_times(sent)}, the sub-model takes {_times(shape)}")
    whole = shape[0] * shape[1] * shape[2]
    data = picture.data  # protobuf copies it each time
    if picture.codec == RAW:
        if len(data) != whole:
            raise _refused(f"the picture has {len(data)} bytes, {_times(shape)} are {whole}")
        return np.frombuffer(data, np.uint8).reshape(shape)
    if picture.codec not in decodable():
        known = ", ".join((RAW, *decodable()))
        raise _refused(f"pictures come as one of {known}, not as {picture.codec[:20]!r}")
    # Whoever sends this would have sent it raw.
    if len(data) >= whole:
        raise _refused(f"the picture has {len(data)} bytes as {picture.codec} and {whole} raw")
    return _decoded(data, picture.codec, shape)


def round_trip(images: np.ndarray, coding: Coding) -> tuple[np.ndarray, float]:
    """Pictures uint8 [n, h, w, c] as a device would see them, and the mean bytes of one on the wire."""
    size = 0
    seen = np.empty_like(images)
    for index, image in enumerate(images):
        picture = encode(image, coding)
        if len(picture.data) >= image.size:
            picture = encode(image)
        size += len(picture.data)
        seen[index] = decode(picture, image.shape)
    return seen, size / len(images)


def _decoded(data: bytes, codec: str, shape: tuple[int, int, int]) -> np.ndarray:
    height, width, channels = shape
    if codec == JPEG and data.count(_SCAN) != 1:
        raise _refused("the JPEG has more than one scan, or none")
    try:
        with Image.open(BytesIO(data), formats=(_PILLOW[codec][0],)) as image:
            said = (image.width, image.height, getattr(image, "n_frames", 1))
            if said != (width, height, 1) or image.mode != _mode(codec, channels):
                raise _refused(
                    f"the {codec} is {image.width} × {image.height} {image.mode}, and the picture "
                    f"{_times(shape)}"
                )
            pixels = np.asarray(image)
    except (*_BROKEN, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _refused(f"the picture cannot be decoded as {codec}") from None
    # WebP knows no grey: three channels that are the same.
    return np.ascontiguousarray(pixels.reshape(height, width, -1)[:, :, :channels])


def _mode(codec: str, channels: int) -> str:
    return "L" if codec == JPEG and channels == 1 else "RGB"


def _refused(why: str) -> DeviceError:
    return DeviceError(why, code=NOT_DECODED)


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
