"""Coordinates: what they count, and in which form they are handed over.

They count from the picture's upper left corner, x to the right and y down. In pixels the picture spans 0…width and
0…height, the first pixel 0…1. They are fractions of the sides where all of a region lie within 0…1 and at least one is
a float (written with a decimal point): the same rule for boxes, points and outlines, in files, options and Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.files.fields import Field

FURTHEST = 1e6  # pixels: beyond it a coordinate is an error, not a place
_BARELY = 0.05  # beyond 0…1: such floats are neither fractions nor a region in pixels


def fractions_meant(numbers: Iterable[float]) -> bool:
    """Whether coordinates are fractions. `GarMaskError` where they would be, but for some just beyond 0…1."""
    listed = list(numbers)
    if not any(isinstance(number, float) for number in listed):
        return False
    if all(0 <= number <= 1 for number in listed):
        return True
    if all(-_BARELY <= number <= 1 + _BARELY for number in listed) and any(number not in (0, 1) for number in listed):
        raise GarMaskError(
            "coordinates lie just beyond 0…1, so they are neither fractions of the sides nor pixels; clip them to 0…1"
        )
    return False


def checked(what: str, numbers: Sequence[Any]) -> list[float]:
    """Coordinates as Python's int and float; `GarMaskError` where one is no number, or lies beyond all pictures."""
    found = [plain(number) for number in numbers]
    for number in found:
        if type(number) not in (int, float):
            raise GarMaskError(f"a {what}'s coordinate is {type(number).__name__}, not a number")
        if not abs(number) < FURTHEST:  # nor is NaN
            raise GarMaskError(f"a {what}'s coordinate leaves the range of ±{FURTHEST:.0f} pixels")
    return found


def read_points(field: Field) -> tuple[tuple[float, float], ...]:
    """The points of a list [[x, y], …]; `GarMaskError` names the one that is none."""
    points = []
    for item in field.items():
        item.to(tuple[int | float, int | float], "[x, y]")
        x, y = item.value
        if not (abs(x) < FURTHEST and abs(y) < FURTHEST):  # nor is NaN
            raise item.wrong("[x, y]")
        points.append((x, y))
    return tuple(points)


def plain(value: Any) -> Any:
    """NumPy's and torch's numbers and arrays as Python's, tuples as lists, bytes as text; all else as it is."""
    if isinstance(value, (str, int, float)) and type(value) in (str, int, float, bool):
        return value
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    listed = getattr(value, "tolist", None)
    return listed() if callable(listed) and not isinstance(value, type) else value
