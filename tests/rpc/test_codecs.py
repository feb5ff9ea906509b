"""Pictures on the wire: what is exact stays exact, and a device decodes nothing that is not its picture."""

import struct
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from edvit_tf.errors import DeviceError
from edvit_tf.rpc.codecs import EXACT, JPEG, WEBP, Coding, decodable, decode, encode
from edvit_tf.rpc.edvit_pb2 import Picture

LOSSLESS = Coding(WEBP)
SHAPES = st.tuples(st.integers(16, 40), st.integers(16, 40), st.sampled_from([1, 3]))


def smooth(shape: tuple[int, int, int]) -> np.ndarray:
    """A picture that every codec makes smaller."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    plane = 128 + 60 * np.sin(rows / 9) + 60 * np.cos(columns / 7)
    return np.repeat(plane[:, :, np.newaxis], shape[2], axis=2).astype(np.uint8)


def test_this_pillow_knows_both_codecs() -> None:
    assert decodable() == (JPEG, WEBP)


@settings(max_examples=50)
@given(SHAPES.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 7, 8, 255]))))
def test_exact_codings_keep_every_byte(image: np.ndarray) -> None:
    for coding in (EXACT, LOSSLESS):
        picture = encode(image, coding)
        if coding == EXACT or len(picture.data) < image.size:
            np.testing.assert_array_equal(decode(picture, image.shape), image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("coding", [Coding(JPEG, 85), Coding(JPEG, 95), Coding(WEBP, 85)])
def test_lossy_codings_stay_near_and_are_shorter(coding: Coding, channels: int) -> None:
    image = smooth((64, 48, channels))
    picture = encode(image, coding)
    decoded = decode(picture, image.shape)
    assert decoded.shape == image.shape
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - image).mean() < 3
    assert len(picture.data) < image.size / 2


@pytest.mark.parametrize("quality", [85, 95])
def test_noise_has_a_jpeg_too(quality: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    assert decode(encode(image, Coding(JPEG, quality)), image.shape).shape == image.shape


def test_colours_keep_their_full_size_in_a_jpeg() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[::2, :, 0] = image[1::2, :, 2] = 255  # lines of red and blue
    decoded = decode(encode(image, Coding(JPEG, 95)), image.shape)
    assert np.abs(decoded.astype(int) - image).max() < 60


@pytest.mark.parametrize("wrong", [("jpeg", None), ("raw", 90)])
def test_there_is_no_such_coding(wrong: tuple[str, int | None]) -> None:
    with pytest.raises(ValueError, match="no coding"):
        Coding(*wrong)


def saved(image: np.ndarray, kind: str, **options: object) -> bytes:
    file = BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def cut(picture: Picture) -> None:
    picture.data = picture.data[:-40]


def as_other(picture: Picture) -> None:
    picture.codec = WEBP if picture.codec == JPEG else JPEG


def unknown(picture: Picture) -> None:
    picture.codec = "avif"


def padded(picture: Picture) -> None:
    picture.data += bytes(64 * 48 * 3)


def smaller(picture: Picture) -> None:
    picture.data = saved(smooth((63, 48, 3)), picture.codec)


def grey(picture: Picture) -> None:
    picture.data = saved(smooth((64, 48, 1))[:, :, 0], "JPEG")


def see_through(picture: Picture) -> None:
    picture.data = saved(np.dstack([smooth((64, 48, 3)), smooth((64, 48, 1))]), "WEBP")


def said_otherwise(picture: Picture) -> None:
    picture.width, picture.height = picture.height, picture.width


def empty(picture: Picture) -> None:
    picture.data = b""


@pytest.mark.parametrize(
    "spoil", [cut, as_other, unknown, padded, smaller, grey, see_through, said_otherwise, empty]
)
@pytest.mark.parametrize("coding", [Coding(JPEG, 95), LOSSLESS])
def test_what_is_not_the_picture_is_refused(coding: Coding, spoil: Callable[[Picture], None]) -> None:
    picture = encode(smooth((64, 48, 3)), coding)
    spoil(picture)
    with pytest.raises(DeviceError) as caught:
        decode(picture, (64, 48, 3))
    assert caught.value.code == "device.picture"


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    data = bytearray(saved(smooth((64, 48, 3)), "JPEG"))
    start = data.index(b"\xff\xc0")  # the frame's header: two bytes of length, one of depth, then the size
    data[start + 5 : start + 9] = struct.pack(">HH", 65500, 65500)
    picture = Picture(codec=JPEG, height=64, width=48, channels=3, data=bytes(data))
    with pytest.raises(DeviceError):
        decode(picture, (64, 48, 3))


def test_scans_without_end_are_refused() -> None:
    image = smooth((64, 48, 3))
    picture = encode(image, Coding(JPEG, 95))
    start = picture.data.index(b"\xff\xda")
    picture.data = picture.data[:start] + picture.data[start : start + 14] * 100 + picture.data[start:]
    assert len(picture.data) < image.size
    with pytest.raises(DeviceError, match="scan"):
        decode(picture, image.shape)
    progressive = saved(image, "JPEG", progressive=True)
    with pytest.raises(DeviceError, match="scan"):
        decode(Picture(codec=JPEG, height=64, width=48, channels=3, data=progressive), image.shape)


def test_an_animation_is_refused() -> None:
    frames = [Image.fromarray(np.roll(smooth((64, 48, 3)), 16 * number, 1)) for number in range(3)]
    file = BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:])
    assert Image.open(file).n_frames == 3  # type: ignore[attr-defined]
    with pytest.raises(DeviceError):
        decode(Picture(codec=WEBP, height=64, width=48, channels=3, data=file.getvalue()), (64, 48, 3))
