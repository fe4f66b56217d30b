"""Pictures and label images from the bytes of `sensor_msgs` messages.

Names and layouts are those of ROS' `image_encodings.hpp`. Rows may be padded to `step` bytes, 16-bit values big-endian.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gar_edge.runtime.errors import GarImageError, GarMaskError
from gar_edge.runtime.images.loading import load_image, printable
from gar_edge.runtime.images.mask_images import load_labels
from gar_edge.runtime.images.values import to_8_bit

Bytes = bytes | bytearray | memoryview | NDArray[np.uint8]


@dataclass(frozen=True)
class Encoding:
    """kind: dtype of a value, without byte order. channels: values of a pixel's place in a row. order: where red, green
    and blue are among them. convert: OpenCV's conversion to RGB instead. rows: of the message for one of the picture.
    """

    kind: str
    channels: int
    order: tuple[int, int, int] = (0, 0, 0)
    convert: str | None = None
    rows: Fraction = Fraction(1)


_COLOURS = {"rgb": (3, (0, 1, 2)), "bgr": (3, (2, 1, 0)), "rgba": (4, (0, 1, 2)), "bgra": (4, (2, 1, 0))}
_BITS = {"8": "u1", "16": "u2"}
ENCODINGS: Mapping[str, Encoding] = {
    **{f"{name}{bits}": Encoding(kind, *form) for name, form in _COLOURS.items() for bits, kind in _BITS.items()},
    **{f"mono{bits}": Encoding(kind, 1) for bits, kind in _BITS.items()},
    "8UC1": Encoding("u1", 1),
    **{
        f"bayer_{pattern}{bits}": Encoding(kind, 1, convert=f"COLOR_Bayer{pattern.upper()}2RGB")
        for pattern in ("rggb", "bggr", "gbrg", "grbg")
        for bits, kind in _BITS.items()
    },
    **dict.fromkeys(("yuv422", "uyvy"), Encoding("u1", 2, convert="COLOR_YUV2RGB_UYVY")),
    **dict.fromkeys(("yuv422_yuy2", "yuyv"), Encoding("u1", 2, convert="COLOR_YUV2RGB_YUY2")),
    "nv12": Encoding("u1", 1, convert="COLOR_YUV2RGB_NV12", rows=Fraction(3, 2)),
    "nv21": Encoding("u1", 1, convert="COLOR_YUV2RGB_NV21", rows=Fraction(3, 2)),
}
_LABELS = {
    **{name: Encoding(kind, 1) for name, kind in (("mono8", "u1"), ("8UC1", "u1"), ("8SC1", "i1"), ("mono16", "u2"))},
    **{name: Encoding(kind, 1) for name, kind in (("16UC1", "u2"), ("16SC1", "i2"), ("32SC1", "i4"))},
}
_DEPTH = frozenset(("16UC1", "32FC1"))
_PNG_16_BIT_COLOURS = frozenset(((16, 2), (16, 6)))  # a PNG's bits and colour type: RGB, RGBA


def to_rgb(
    encoding: str, height: int, width: int, step: int, data: Bytes, *, big_endian: bool = False
) -> NDArray[np.uint8]:
    """RGB [H,W,3] from the fields of a `sensor_msgs/Image`; `GarImageError` for what is none.

    16 bits are scaled to 8, alpha is dropped, Bayer patterns are demosaiced bilinearly, YUV is BT.601's (OpenCV).
    """
    form = ENCODINGS.get(encoding)
    if form is None:
        why = "hold depth, not a picture" if encoding in _DEPTH else "are not known"
        raise GarImageError(f"images of encoding {printable(encoding)!r} {why}; send one of {', '.join(ENCODINGS)}")
    plane = _rows(form, height, width, step, data, big_endian)
    if form.convert is not None:
        import cv2

        if (form.channels == 2 and width % 2) or (form.rows != 1 and (width % 2 or height % 2)):
            raise GarImageError(f"an image of {width}x{height} cannot be {encoding}, which halves its sides")
        if form.channels == 1 and form.rows == 1 and min(width, height) < 4:
            raise GarImageError(f"an image of {width}x{height} is too small for a {encoding} pattern")
        rgb = np.asarray(cv2.cvtColor(np.ascontiguousarray(plane), getattr(cv2, form.convert)))
    else:
        rgb = plane[:, :, form.order]
    return np.ascontiguousarray(to_8_bit(rgb) if rgb.dtype != np.uint8 else rgb, np.uint8)


def to_labels(
    encoding: str, height: int, width: int, step: int, data: Bytes, *, big_endian: bool = False
) -> NDArray[np.int64]:
    """Labels [H,W] from a `sensor_msgs/Image` of one channel, 0 being no region; `GarMaskError` for what is none."""
    if encoding not in _LABELS:
        raise GarMaskError(f"masks of encoding {printable(encoding)!r} are not known; send one of {', '.join(_LABELS)}")
    try:
        plane = _rows(_LABELS[encoding], height, width, step, data, big_endian)
    except GarImageError as error:
        raise GarMaskError(str(error)) from None
    return plane[:, :, 0].astype(np.int64)


def from_compressed(form: str, data: Bytes) -> NDArray[np.uint8]:
    """RGB [H,W,3] from the fields of a `sensor_msgs/CompressedImage`: what Pillow reads, JPEG and PNG above all.

    `form` is the message's own words on it, such as "bgr8; jpeg compressed bgr8"; the file says all but one thing, that
    it is compressed depth. `GarImageError` for that, and for what cannot be decoded.
    """
    _refuse_depth(form, GarImageError)
    content = bytes(data)
    rgb = load_image(_opened(content, form, GarImageError))
    if content[:4] == b"\x89PNG" and tuple(content[24:26]) in _PNG_16_BIT_COLOURS:
        import cv2

        # Pillow takes the high byte of each value; it has read the file to its end, though, so that it is whole.
        bgr = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        rgb = to_8_bit(np.asarray(bgr)[:, :, 2::-1])
    return np.ascontiguousarray(rgb)


def labels_from_compressed(form: str, data: Bytes) -> NDArray[np.int64]:
    """Labels [H,W] from a `sensor_msgs/CompressedImage` without loss; `GarMaskError` otherwise."""
    _refuse_depth(form, GarMaskError)
    return load_labels(_opened(bytes(data), form, GarMaskError))


def _opened(content: bytes, form: str, error: type[GarImageError | GarMaskError]) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content))
    except Exception:  # Pillow raises whatever comes to it where a file is damaged
        raise error(f"a compressed image, {printable(form)!r}, is none that can be decoded") from None


def _refuse_depth(form: str, error: type[GarImageError | GarMaskError]) -> None:
    if "compressedDepth" in form:
        raise error(f"a compressed image, {printable(form)!r}, holds depth, not a picture")


def _rows(
    form: Encoding, height: int, width: int, step: int, data: Bytes, big_endian: bool
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """[rows,width,channels] in this machine's byte order, the padding of rows left out."""
    dtype = np.dtype(form.kind).newbyteorder(">" if big_endian else "<")
    content = np.frombuffer(data, np.uint8)
    used, rows = width * form.channels * dtype.itemsize, int(height * form.rows)
    # The last row needs no padding.
    if min(height, width) < 1 or step < used or len(content) < (rows - 1) * step + used:
        raise GarImageError(f"an image of {width}x{height}, {step} bytes a row, cannot have {len(content)} bytes")
    lines = np.lib.stride_tricks.as_strided(content, (rows, used), (step, 1), writeable=False)
    values = np.ascontiguousarray(lines).view(dtype).reshape(rows, width, form.channels)
    return values.astype(dtype.newbyteorder("="), copy=False)
