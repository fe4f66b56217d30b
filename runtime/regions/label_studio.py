"""Label Studio's JSON export: brushes, polygons, rectangles and ellipses.

Coordinates are percentages of the sides. A brush's run lengths are RGBA values, row by row, in a bit stream: the number
of values (32 bits), their width less one (5), four lengths less one (4 each), then runs: a bit that says whether one
value is repeated, two that choose a length's width, the length less one, the value or values
(label-studio-sdk, converter/brush.py). Alpha marks the region.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.files.fields import Field, Side
from gar_edge.runtime.images.shape import Mask
from gar_edge.runtime.regions.coordinates import FURTHEST
from gar_edge.runtime.regions.names import entry_about
from gar_edge.runtime.regions.polygons import Polygons
from gar_edge.runtime.regions.reading import Reading, naming
from gar_edge.runtime.regions.rle import checked_size

_HALF = 128  # of alpha
_PERCENT = 100
_CORNERS = 64  # of the outline that stands for an ellipse


@dataclass(frozen=True)
class Brush:
    """A brush's run lengths, bytes, for a picture of `size` (width, height)."""

    coded: bytes
    size: tuple[int, int]

    def draw(self, width: int, height: int) -> Mask:
        """The mask at its own size; `GarMaskError` where the runs do not fit it."""
        wide, high = checked_size(*self.size)
        values = decode_brush(self.coded, 4 * wide * high)
        mask: Mask = values.reshape(high, wide, 4)[..., 3] >= _HALF
        return mask


_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
_Finite = Annotated[float, msgspec.Meta(ge=-FURTHEST, le=FURTHEST)]  # NaN is not, either


class _Result(msgspec.Struct):
    type: str
    value: dict[str, Any]
    id: str | None = None
    original_width: Side | None = None
    original_height: Side | None = None
    image_rotation: float | None = None


class _Percent(msgspec.Struct):
    x: _Finite
    y: _Finite
    width: _Finite | None = None
    height: _Finite | None = None
    radiusX: _Finite | None = None  # noqa: N815 - the file's names
    radiusY: _Finite | None = None  # noqa: N815
    rotation: _Finite | None = None


def is_label_studio(root: Field) -> bool:
    """Whether a file's value has the form of Label Studio's tasks, or of one of them."""
    tasks = root.value if isinstance(root.value, list) else [root.value]
    return bool(tasks) and all(isinstance(task, dict) and {"data", "annotations"} <= set(task) for task in tasks)


def read_label_studio(root: Field, image: str) -> Reading:
    """The regions of the task about this picture, of the first annotation that was not cancelled."""
    tasks = list(root.items()) if isinstance(root.value, list) else [root]
    task = tasks[entry_about([_names(task) for task in tasks], image, root.source)]
    reading = Reading()
    for annotation in task["annotations"].items():
        if annotation["was_cancelled"].value:
            continue
        for entry in annotation["result"].items():
            if isinstance(entry.value, dict) and not isinstance(entry.value.get("original_width"), (int, float)):
                continue  # a choice or a text about the whole picture
            with reading.skipping(), naming(entry):
                result = entry.to(_Result)
                reading.add(_region(entry, result), result.id)
        break
    return reading


def decode_brush(coded: bytes, count: int) -> NDArray[np.uint8]:
    """The `count` values that a brush's bit stream stands for; `GarMaskError` where it stands for another number."""
    bits = _Bits(coded)
    total = bits.read(32)
    if total != count:
        raise GarMaskError(f"its run lengths hold {total} values, its size needs {count}")
    word = bits.read(5) + 1
    widths = [bits.read(4) + 1 for _ in range(4)]
    if word != 8:
        raise GarMaskError(f"its run lengths hold values of {word} bits, where bytes are needed")
    values = np.zeros(count, np.uint8)
    at = 0
    while at < count:
        repeated = bits.read(1)
        end = at + 1 + bits.read(widths[bits.read(2)])
        if end > count:
            raise GarMaskError("its run lengths are longer than its size")
        if repeated:
            values[at:end] = bits.read(word)
        else:
            for place in range(at, end):
                values[place] = bits.read(word)
        at = end
    return values


class _Bits:
    """A bit stream, the highest bit of each byte first."""

    def __init__(self, coded: bytes) -> None:
        self._coded = coded
        self._at = 0

    def read(self, count: int) -> int:
        first, last = self._at // 8, (self._at + count + 7) // 8
        if last > len(self._coded):
            raise GarMaskError("its run lengths end too early")
        self._at += count
        value = int.from_bytes(self._coded[first:last], "big") >> (8 * last - self._at)
        return value & ((1 << count) - 1)


def _names(task: Field) -> list[str]:
    data = task["data"].value
    names = [value for value in data.values() if isinstance(value, str)] if isinstance(data, dict) else []
    upload = task.value.get("file_upload")
    return [*names, *([upload] if isinstance(upload, str) else [])]


def _region(entry: Field, result: _Result) -> Brush | Polygons:
    width, height = result.original_width, result.original_height
    if width is None or height is None:
        raise entry["original_height"].wrong("the picture's height")
    if result.image_rotation:
        raise GarMaskError(f"the picture was turned by {result.image_rotation:g}° in Label Studio; mark it upright")
    size, value = (int(width), int(height)), entry["value"]
    if "rle" in result.value:
        return Brush(bytes(value["rle"].to(list[_Byte], "a list of bytes")), size)
    if "points" in result.value:
        return _outline([tuple(point.to(tuple[_Finite, _Finite], "[x, y]")) for point in value["points"].items()], size)
    box = value.to(_Percent)
    if box.radiusX is not None and box.radiusY is not None:
        turns = np.linspace(0, 2 * math.pi, _CORNERS, endpoint=False)
        corners = np.stack([box.radiusX * np.cos(turns), box.radiusY * np.sin(turns)], axis=1)
    elif box.width is not None and box.height is not None:
        corners = np.array([(0, 0), (box.width, 0), (box.width, box.height), (0, box.height)])
    else:
        raise entry["type"].wrong("brushlabels, polygonlabels, rectanglelabels or ellipselabels, which mark an area")
    return _outline(_rotated(corners, size, box.rotation or 0) + np.array([box.x, box.y]), size)


def _rotated(corners: NDArray[np.floating], size: tuple[int, int], degrees: float) -> NDArray[np.floating]:
    """Corners in percent, turned clockwise about the origin as the picture shows it, whose sides differ."""
    angle, sides = math.radians(degrees), np.array(size)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return (corners * sides) @ turn / sides


def _outline(points: Any, size: tuple[int, int]) -> Polygons:
    pixels = np.array(points, np.float64).reshape(-1, 2) * size / _PERCENT
    return Polygons([pixels], size, fractions=False)
