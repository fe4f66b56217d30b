"""Pictures from messages' bytes, against bytes that were laid out by hand, and against Pillow and OpenCV's encoders."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from gar_edge.runtime.errors import GarImageError, GarMaskError
from gar_edge.runtime.recordings.pixels import from_compressed, labels_from_compressed, to_labels, to_rgb

RANDOM = np.random.default_rng(21)
PICTURE = RANDOM.integers(0, 256, (5, 7, 3), np.uint8)
DEEP = RANDOM.integers(0, 65536, (5, 7, 3), np.uint16)
HEIGHT, WIDTH = PICTURE.shape[:2]


def laid_out(rows: np.ndarray, padding: int) -> tuple[int, bytes]:
    """Bytes a row, and the bytes of rows, each padded with bytes that are no picture."""
    data = b"".join(row.tobytes() + b"\xaa" * padding for row in rows)
    return len(rows[0].tobytes()) + padding, data


def scaled(values: np.ndarray) -> np.ndarray:
    """16 bits to 8, by whole numbers: the nearest of 257 steps."""
    return ((values.astype(np.int64) * 2 + 257) // 514).astype(np.uint8)


ALPHA = np.full((HEIGHT, WIDTH, 1), 7)
LAYOUTS = {
    "rgb8": (PICTURE, PICTURE), "bgr8": (PICTURE[..., ::-1], PICTURE),
    "rgba8": (np.concatenate([PICTURE, ALPHA.astype(np.uint8)], 2), PICTURE),
    "bgra8": (np.concatenate([PICTURE[..., ::-1], ALPHA.astype(np.uint8)], 2), PICTURE),
    "mono8": (PICTURE[..., 0], np.repeat(PICTURE[..., :1], 3, 2)),
    "8UC1": (PICTURE[..., 0], np.repeat(PICTURE[..., :1], 3, 2)),
    "rgb16": (DEEP, scaled(DEEP)), "bgr16": (DEEP[..., ::-1], scaled(DEEP)),
    "rgba16": (np.concatenate([DEEP, ALPHA.astype(np.uint16)], 2), scaled(DEEP)),
    "bgra16": (np.concatenate([DEEP[..., ::-1], ALPHA.astype(np.uint16)], 2), scaled(DEEP)),
    "mono16": (DEEP[..., 0], np.repeat(scaled(DEEP[..., :1]), 3, 2)),
}  # fmt: skip


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 1, 5, 64])
@pytest.mark.parametrize("encoding", sorted(LAYOUTS))
def test_every_layout_of_colour_and_grey(encoding: str, padding: int, big_endian: bool) -> None:
    values, expected = LAYOUTS[encoding]
    ordered = values.astype(values.dtype.newbyteorder(">" if big_endian else "<"))
    step, data = laid_out(ordered, padding)
    found = to_rgb(encoding, HEIGHT, WIDTH, step, data, big_endian=big_endian)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)


def test_the_last_row_needs_no_padding() -> None:
    step, data = laid_out(PICTURE, 5)
    assert np.array_equal(to_rgb("rgb8", HEIGHT, WIDTH, step, data[:-5]), PICTURE)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_mosaic_of_one_colour_is_that_colour(pattern: str, bits: int) -> None:
    """Red, green and blue stand where the pattern's name says, from the upper left."""
    colour = {"r": 200, "g": 90, "b": 30}
    plane = np.zeros((8, 10), np.uint8 if bits == 8 else "<u2")
    for place, letter in enumerate(pattern):
        plane[place // 2 :: 2, place % 2 :: 2] = colour[letter] * (1 if bits == 8 else 257)
    step, data = laid_out(plane, 3)
    found = to_rgb(f"bayer_{pattern}{bits}", 8, 10, step, data)
    assert (found == [200, 90, 30]).all()


# BT.601's studio range, as in the standard's table of colour bars at 100 %.
YUV = {
    (255, 255, 255): (235, 128, 128),
    (255, 0, 0): (81, 90, 240),
    (0, 255, 0): (145, 54, 34),
    (0, 0, 0): (16, 128, 128),
}


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21"])
@pytest.mark.parametrize("colour", sorted(YUV))
def test_yuv_of_one_colour_is_that_colour(encoding: str, colour: tuple[int, int, int]) -> None:
    y, u, v = YUV[colour]
    if encoding.startswith("nv"):
        chroma = (u, v) if encoding == "nv12" else (v, u)
        rows = np.concatenate([np.full((4, 6), y), np.tile(chroma, (2, 3))]).astype(np.uint8)
    else:
        pair = (u, y, v, y) if encoding in ("yuv422", "uyvy") else (y, u, y, v)
        rows = np.tile(pair, (4, 3)).astype(np.uint8)
    step, data = laid_out(rows, 2)
    found = to_rgb(encoding, 4, 6, step, data)
    assert np.abs(found.astype(int) - colour).max() <= 2


@pytest.mark.parametrize(
    ("encoding", "size", "step", "count", "part"),
    [
        ("rgb8", (5, 7), 20, 100, "cannot have"), ("rgb8", (5, 7), 21, 104, "cannot have"),
        ("rgb8", (0, 7), 21, 105, "cannot have"), ("mono16", (5, 7), 7, 70, "7 bytes a row"),
        ("16UC1", (5, 7), 14, 70, "hold depth, not a picture"), ("32FC1", (5, 7), 28, 140, "hold depth"),
        ("8UC3", (5, 7), 21, 105, "'8UC3' are not known; send one of rgb8"), ("", (5, 7), 21, 105, "are not known"),
        ("x\ny", (5, 7), 21, 105, r"'x\\\\ny' are not known"), ("nv12", (5, 7), 7, 70, "halves its sides"),
        ("yuyv", (4, 7), 14, 70, "halves its sides"), ("bayer_rggb8", (2, 2), 2, 4, "too small"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused(encoding: str, size: tuple[int, int], step: int, count: int, part: str) -> None:
    with pytest.raises(GarImageError, match=part):
        to_rgb(encoding, *size, step, b"0" * count)


@pytest.mark.parametrize("form", ["bgr8; png compressed bgr8", "png", ""])
def test_png_is_exact_whatever_the_message_calls_it(form: str) -> None:
    content = io.BytesIO()
    Image.fromarray(PICTURE).save(content, "PNG")
    assert np.array_equal(from_compressed(form, content.getvalue()), PICTURE)


@pytest.mark.parametrize("encoding", ["mono16", "rgb16", "rgba16"])
def test_png_of_16_bits_is_scaled_not_cut(encoding: str) -> None:
    """`cv::imencode`, as compressed_image_transport uses it."""
    alpha = np.full((HEIGHT, WIDTH, 1), 65535, np.uint16)
    stored, expected = {
        "mono16": (DEEP[..., 0], np.repeat(scaled(DEEP[..., :1]), 3, 2)),
        "rgb16": (DEEP[..., ::-1], scaled(DEEP)),
        "rgba16": (np.concatenate([DEEP[..., ::-1], alpha], 2), scaled(DEEP)),
    }[encoding]
    _, content = cv2.imencode(".png", stored)
    assert np.array_equal(from_compressed(f"{encoding}; png compressed", content), expected)


def test_jpeg_is_that_of_pillow_and_close_to_the_picture() -> None:
    smooth = cv2.resize(PICTURE, (70, 50), interpolation=cv2.INTER_CUBIC)
    _, content = cv2.imencode(".jpg", smooth[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    found = from_compressed("rgb8; jpeg compressed bgr8", content)
    assert np.array_equal(found, np.asarray(Image.open(io.BytesIO(content.tobytes())).convert("RGB")))
    assert np.abs(found.astype(int) - smooth).mean() < 6


@pytest.mark.parametrize(
    ("form", "spoil", "part"),
    [
        ("16UC1; compressedDepth png", lambda content: content, "holds depth"),
        ("jpeg", lambda content: b"", "none that can be decoded"),
        ("jpeg", lambda content: b"not a picture", "none that can be decoded"),
        ("png", lambda content: content[: len(content) // 2], "damaged"),
        ("png", lambda content: content[:40], "decoded|damaged"),
    ],
)
def test_compressed_images_that_are_none(form: str, spoil: object, part: str) -> None:
    _, content = cv2.imencode(".png", DEEP)
    with pytest.raises(GarImageError, match=part):
        from_compressed(form, spoil(content.tobytes()))  # type: ignore[operator]


@pytest.mark.parametrize(("encoding", "kind"), [("mono8", "u1"), ("8UC1", "u1"), ("mono16", "u2"), ("16UC1", "u2")])
@pytest.mark.parametrize("big_endian", [False, True])
def test_labels_keep_their_numbers(encoding: str, kind: str, big_endian: bool) -> None:
    labels = RANDOM.integers(0, 200 if kind == "u1" else 60000, (HEIGHT, WIDTH))
    step, data = laid_out(labels.astype(np.dtype(kind).newbyteorder(">" if big_endian else "<")), 3)
    assert np.array_equal(to_labels(encoding, HEIGHT, WIDTH, step, data, big_endian=big_endian), labels)


def test_labels_of_32_bits_and_compressed_ones() -> None:
    labels = RANDOM.integers(0, 100000, (HEIGHT, WIDTH))
    assert np.array_equal(to_labels("32SC1", HEIGHT, WIDTH, WIDTH * 4, labels.astype("<i4").tobytes()), labels)
    _, content = cv2.imencode(".png", (labels % 60000).astype(np.uint16))
    assert np.array_equal(labels_from_compressed("16UC1; png compressed", content), labels % 60000)


def test_masks_that_are_none() -> None:
    with pytest.raises(GarMaskError, match="masks of encoding 'rgb8' are not known; send one of mono8"):
        to_labels("rgb8", HEIGHT, WIDTH, WIDTH * 3, PICTURE.tobytes())
    with pytest.raises(GarMaskError, match="cannot have"):
        to_labels("mono8", HEIGHT, WIDTH, WIDTH, b"0")
    _, content = cv2.imencode(".jpg", PICTURE[..., 0])
    with pytest.raises(GarMaskError, match="lossy"):
        labels_from_compressed("mono8; jpeg compressed", content)
