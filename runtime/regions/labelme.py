"""labelme's files, and those of X-AnyLabeling, which has its form: shapes, drawn as labelme draws them.

Source of the rasterisation: labelme 6.3.1, utils/shape.py (`shape_to_mask`, `shapes_to_label`): Pillow's polygon,
rectangle and ellipse with their outlines; shapes of one label and one group are one region. Points, lines and line
strips mark no area and are left out.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from PIL import Image, ImageDraw

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.files.fields import Field, Side
from gar_edge.runtime.images.loading import converted, decoded
from gar_edge.runtime.images.shape import Mask
from gar_edge.runtime.regions.coordinates import fractions_meant, read_points
from gar_edge.runtime.regions.names import entry_about
from gar_edge.runtime.regions.reading import Reading, naming
from gar_edge.runtime.regions.rle import checked_size

Point = tuple[float, float]
_AREAS = ("polygon", "rectangle", "rotation", "oriented_rectangle", "circle", "mask")
_QUADS = ("rectangle", "rotation", "oriented_rectangle")  # of two corners, or of all four


@dataclass(frozen=True)
class Shape:
    """One of labelme's shapes: its kind, its points (x, y), and the pixels [h,w] of a mask, from the first point on."""

    kind: str
    points: tuple[Point, ...]
    pixels: bytes | None = None  # a PNG's


@dataclass(frozen=True)
class Shapes:
    """Shapes that together make one region of a picture of `size` (width, height), or of the asked one."""

    parts: tuple[Shape, ...]
    size: tuple[int, int] | None

    def draw(self, width: int, height: int) -> Mask:
        """The mask at its own size, or the picture's where it has none; `GarMaskError` where a part is none."""
        wide, high = checked_size(*(self.size or (width, height)))
        drawn = np.zeros((high, wide), np.bool_)
        for part in self.parts:
            if part.pixels is None:
                drawn |= _outlined(part, wide, high)
            else:
                _paste(drawn, part)
        return drawn


class _Shape(msgspec.Struct):
    shape_type: str | None = None
    label: Any = None
    group_id: int | str | None = None
    mask: str | None = None
    points: Any = None


def is_labelme(root: Field) -> bool:
    """Whether a file's value has the form of labelme's."""
    return isinstance(root.value, dict) and "shapes" in root.value


def read_labelme(root: Field, image: str) -> Reading:
    """The regions of a labelme file about this picture; shapes of one label and one group are one."""
    about = root["imagePath"].value
    entry_about([[about] if isinstance(about, str) and about else []], image, root.source)
    size, reading = _size(root), Reading()
    for group in shape_groups(root):
        parts = []
        for entry in group:
            with reading.skipping(), naming(entry):
                parts.append(_shape(entry, entry.to(_Shape)))
        if parts:
            reading.add(Shapes(tuple(parts), size))
    return reading


def read_shapes(field: Field) -> Shapes:
    """The one region that all shapes of an object make; the first that cannot be read raises."""
    parts = []
    for entry in field["shapes"].items():
        with naming(entry):
            parts.append(_shape(entry, entry.to(_Shape)))
    return Shapes(tuple(parts), _size(field))


def shape_groups(root: Field) -> list[list[Field]]:
    """A file's shapes as the regions that they make: those of one label and one group together."""
    regions: list[list[Field]] = []
    groups: dict[tuple[str, int | str], list[Field]] = {}
    for entry in root["shapes"].items():
        value = entry.value if isinstance(entry.value, dict) else {}
        name = value.get("group_id")
        group: list[Field] = []
        if isinstance(name, (int, str)):
            group = groups.setdefault((repr(value.get("label")), name), group)
        if not group:
            regions.append(group)
        group.append(entry)
    return regions


def _size(root: Field) -> tuple[int, int] | None:
    width, height = (root[key].to(Side | None) for key in ("imageWidth", "imageHeight"))
    return None if width is None or height is None else (int(width), int(height))


def _shape(entry: Field, head: _Shape) -> Shape:
    kind = head.shape_type or "polygon"
    if kind not in _AREAS:
        raise entry["shape_type"].wrong("polygon, rectangle, circle or mask, which mark an area")
    points = read_points(entry["points"])
    if kind == "mask":
        if len(points) != 2:
            raise entry["points"].wrong("two points, its corners")
        return Shape(kind, points, _decoded(entry["mask"]))
    if kind == "circle" and len(points) != 2:
        raise entry["points"].wrong("two points, its centre and one on its edge")
    if kind in _QUADS and len(points) not in (2, 4):
        raise entry["points"].wrong("two points, opposite corners, or all four")
    if kind == "polygon" and len(points) < 3:
        raise GarMaskError(f"a polygon of {2 * len(points)} numbers; three points or more are needed, x and y each")
    return Shape("polygon" if kind in _QUADS and len(points) == 4 else kind, points)


def _decoded(field: Field) -> bytes:
    if not isinstance(field.value, str):
        raise field.wrong("a picture in base64")
    try:
        return base64.b64decode(field.value, validate=True)
    except (binascii.Error, ValueError):
        raise GarMaskError(f"{field.source}: {field.where} is no base64") from None


def _outlined(part: Shape, width: int, height: int) -> Mask:
    points: Sequence[Point] = part.points
    if fractions_meant([at for point in points for at in point]):
        points = [(x * width, y * height) for x, y in points]
    plane = Image.new("L", (width, height))
    draw = ImageDraw.Draw(plane)
    if part.kind == "circle":
        (x, y), (edge_x, edge_y) = points
        radius = math.hypot(x - edge_x, y - edge_y)
        draw.ellipse(((x - radius, y - radius), (x + radius, y + radius)), outline=1, fill=1)
    elif part.kind == "polygon":
        draw.polygon(list(points), outline=1, fill=1)
    else:
        (x1, y1), (x2, y2) = points
        draw.rectangle(((min(x1, x2), min(y1, y2)), (max(x1, x2), max(y1, y2))), outline=1, fill=1)
    return np.asarray(plane) > 0


def _paste(drawn: Mask, part: Shape) -> None:
    """Set a mask's pixels; what would lie outside the picture is cut off."""
    try:
        opened = Image.open(io.BytesIO(part.pixels or b""))
    except Exception:
        raise GarMaskError("a shape's mask is no picture") from None
    picture, _ = decoded(opened, GarMaskError, "a shape's mask")
    pixels = np.asarray(converted(picture, "L", GarMaskError, "a shape's mask")) > 0
    left, upper = (int(at) for at in part.points[0])
    target = drawn[max(upper, 0) : max(upper + pixels.shape[0], 0), max(left, 0) : max(left + pixels.shape[1], 0)]
    first_row, first_column = max(-upper, 0), max(-left, 0)
    target |= pixels[first_row : first_row + target.shape[0], first_column : first_column + target.shape[1]]
