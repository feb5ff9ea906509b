"""Pictures: what comes out is uint8 of the model's size, whatever goes in, or one clear sentence."""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edvit_tf.bundle.manifest import InputSpec
from edvit_tf.bundle.picture import LARGEST_PIXELS, open_picture, prepare
from edvit_tf.errors import DataError

GREY = InputSpec(height=28, width=28, channels=1)
RGB = InputSpec(height=28, width=28, channels=3)
RANDOM = np.random.default_rng(3)
COLOURS = RANDOM.integers(0, 256, (28, 28, 3), dtype=np.uint8)


def saved(tmp_path: Path, image: Image.Image, name: str = "picture.png", **options: Any) -> Path:
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm"])
def test_a_picture_of_the_model_s_size_keeps_every_byte(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path, Image.fromarray(COLOURS), f"picture.{suffix}")
    assert np.array_equal(prepare(open_picture(path), RGB), COLOURS)
    grey = COLOURS[..., :1]
    path = saved(tmp_path, Image.fromarray(grey[..., 0]), f"grey.{suffix}")
    assert np.array_equal(prepare(open_picture(path), GREY), grey)


def test_what_comes_out_can_be_written_to_and_stands_alone(tmp_path: Path) -> None:
    image = open_picture(saved(tmp_path, Image.fromarray(COLOURS)))
    first = prepare(image, RGB)
    first[:] = 0
    assert np.array_equal(prepare(image, RGB), COLOURS)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "I;16", "PA"]
)
@pytest.mark.parametrize("size", [(28, 28), (50, 30), (3, 90), (1, 1), (1000, 2)])
@pytest.mark.parametrize("spec", [GREY, RGB, InputSpec(height=5, width=40, channels=3)])
def test_any_mode_and_any_size(mode: str, size: tuple[int, int], spec: InputSpec) -> None:
    image = Image.new("RGB", size, (200, 10, 30)).convert("RGBA" if mode == "PA" else "RGB")
    if mode in ("I", "I;16"):
        image = Image.new(mode, size, 40000)
    elif mode == "PA":
        image = image.convert("P").convert("PA")
    else:
        image = image.convert(mode, dither=Image.Dither.NONE)
    prepared = prepare(image, spec)
    assert prepared.shape == (spec.height, spec.width, spec.channels)
    assert prepared.dtype == np.uint8
    assert prepared.min(axis=(0, 1)).tolist() == prepared.max(axis=(0, 1)).tolist(), (
        "one colour stays one colour"
    )


def test_grey_becomes_three_equal_channels_and_colours_their_luminance() -> None:
    grey = Image.fromarray(COLOURS[..., 0])
    assert np.array_equal(prepare(grey, RGB), np.repeat(COLOURS[..., :1], 3, axis=2))
    luminance = COLOURS @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    assert np.abs(prepare(Image.fromarray(COLOURS), GREY)[..., 0] - luminance).max() <= 1


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 28 * 28).reshape(28, 28).astype(np.uint16)
    for name in ("deep.png", "deep.tiff"):
        prepared = prepare(open_picture(saved(tmp_path, Image.fromarray(ramp), name)), GREY)
        assert np.array_equal(prepared[..., 0], np.floor(ramp / 257 + 0.5).astype(np.uint8))
        assert (prepared.min(), prepared.max()) == (0, 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_what_is_transparent_becomes_white(mode: str) -> None:
    pixels = np.zeros((28, 28, 4), np.uint8)
    pixels[:14] = (0, 0, 0, 255)
    prepared = prepare(Image.fromarray(pixels).convert("RGBA" if mode == "PA" else mode), RGB)
    assert (prepared[:14] == 0).all()
    assert (prepared[14:] == 255).all()


def test_a_palette_with_one_transparent_colour(tmp_path: Path) -> None:
    image = Image.new("P", (28, 28), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.paste(0, (0, 0, 28, 14))
    path = saved(tmp_path, image, "palette.png", transparency=0)
    prepared = prepare(open_picture(path), RGB)
    assert (prepared[:14] == 255).all()
    assert (prepared[14:] == (40, 50, 60)).all()


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (28, 28), colour) for colour in ("red", "blue")]
    path = saved(tmp_path, frames[0], "moving.gif", save_all=True, append_images=frames[1:])
    assert prepare(open_picture(path), RGB)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", ["png", "jpeg", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = np.zeros((20, 28), np.uint8)
    upright[:10, :14] = 255  # bright in the upper left
    turn = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(turn[orientation])).convert("RGB")
    path = saved(tmp_path, image, f"turned.{suffix}", exif=exif, quality=95)
    prepared = prepare(open_picture(path), InputSpec(height=20, width=28, channels=1))[..., 0]
    assert prepared[:8, :12].min() > 200
    assert prepared[12:].max() < 60
    assert prepared[:, 16:].max() < 60


def test_a_broken_exif_block_does_not_lose_the_picture(tmp_path: Path) -> None:
    path = saved(
        tmp_path, Image.fromarray(COLOURS), "odd.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff nonsense"
    )
    assert np.array_equal(prepare(open_picture(path), RGB), COLOURS)


def test_the_shorter_side_is_resized_and_the_centre_kept() -> None:
    wide = np.zeros((56, 200, 3), np.uint8)
    wide[:, 72:128] = 255
    assert (prepare(Image.fromarray(wide), RGB)[:, 1:-1] == 255).all()
    tall = wide.transpose(1, 0, 2)
    assert (prepare(Image.fromarray(np.ascontiguousarray(tall)), RGB)[1:-1] == 255).all()


def test_resizing_is_antialiased_and_the_same_every_time() -> None:
    board = np.indices((280, 280)).sum(axis=0) % 2 * 255
    image = Image.fromarray(board.astype(np.uint8))
    prepared = prepare(image, GREY)
    assert (prepared >= 120).all()
    assert (prepared <= 135).all()
    assert prepare(image, GREY).tobytes() == prepared.tobytes()


def test_the_bytes_of_a_resized_picture_are_pinned() -> None:
    """Every machine must prepare the same bytes: Pillow resizes in integers."""
    rows, columns = np.indices((9, 13))
    image = Image.fromarray(((rows * 31 + columns * 17) % 256).astype(np.uint8))
    prepared = prepare(image, InputSpec(height=4, width=4, channels=1))[..., 0]
    assert prepared.tolist() == GOLDEN


GOLDEN = [[70, 109, 147, 186], [132, 170, 184, 138], [193, 152, 71, 67], [111, 67, 87, 126]]


def test_any_object_with_height_width_and_channels_will_do() -> None:
    @dataclass(frozen=True)
    class Size:
        height: int = 4
        width: int = 6
        channels: int = 3

    assert prepare(Image.fromarray(COLOURS), Size()).shape == (4, 6, 3)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xff\xd8\xff"]
)
def test_a_file_that_is_no_picture(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"notes\.png is not a picture that can be read: give"):
        open_picture(path)


@pytest.mark.parametrize("suffix", ["png", "jpeg", "webp", "tiff", "bmp", "gif"])
def test_a_picture_that_was_cut_short(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path, Image.fromarray(np.repeat(np.repeat(COLOURS, 4, 0), 4, 1)), f"cut.{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="is not a picture that can be read"):
        open_picture(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_picture_is_a_picture_or_a_data_error(tmp_path: Path, draw: st.DataObject) -> None:
    suffix = draw.draw(st.sampled_from(["png", "jpeg", "webp", "tiff", "bmp", "gif", "ppm"]))
    buffer = io.BytesIO()
    Image.fromarray(COLOURS[:8, :8]).save(buffer, suffix)
    content = bytearray(buffer.getvalue())
    for _ in range(draw.draw(st.integers(1, 8))):
        content[draw.draw(st.integers(0, len(content) - 1))] = draw.draw(st.integers(0, 255))
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(content)
    try:
        image = open_picture(path)
    except DataError:
        return
    assert prepare(image, RGB).shape == (28, 28, 3)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_000, 10_000, 60_000])
def test_a_small_file_that_claims_a_huge_picture(tmp_path: Path, side: int) -> None:
    assert side * side > LARGEST_PIXELS
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(side, side))
    with pytest.raises(DataError, match="more than 64 megapixels: give a smaller"):
        open_picture(path)


def test_a_path_with_nothing_there_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(DataError, match="There is no picture at"):
            open_picture(path)


def test_floating_point_pictures_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(np.ones((28, 28), np.float32)), "float.tiff")
    with pytest.raises(DataError, match="save it with 8 bits"):
        prepare(open_picture(path), GREY)


def test_a_picture_without_pixels_is_refused() -> None:
    with pytest.raises(DataError, match="no pixels"):
        prepare(Image.new("L", (0, 5)), GREY)
