"""Outlines and fills of single objects, drawn antialiased with OpenCV."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Plane = NDArray[np.float32]

SUBPIXEL_BITS = 6


def _regular(corners: int, start: float = -np.pi / 2) -> Points:
    angles = start + np.arange(corners) * 2 * np.pi / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _square() -> Points:
    return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=np.float64)


def _star() -> Points:
    points = _regular(10)
    points[1::2] *= 0.42
    return points


def _cross() -> Points:
    arm = 0.36
    quarter = np.array([(-arm, -1), (arm, -1), (arm, -arm)])
    turn = np.array([(0, 1), (-1, 0)])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y], axis=1)


def _moon() -> Points:
    outer = np.linspace(np.radians(55), np.radians(305), 32)
    inner = np.linspace(np.radians(292), np.radians(68), 24)
    outside = np.stack([np.cos(outer), np.sin(outer)], axis=1)
    inside = np.stack([0.32 + 0.87 * np.cos(inner) * 0.82, 0.87 * np.sin(inner)], axis=1)
    return np.concatenate([outside, inside])


def _arrow() -> Points:
    return np.array([(-1, -0.32), (0, -0.32), (0, -0.85), (1, 0), (0, 0.85), (0, 0.32), (-1, 0.32)], dtype=np.float64)


_OUTLINES: dict[str, Callable[[], Points]] = {
    "circle": lambda: _regular(48),
    "square": _square,
    "triangle": lambda: _regular(3),
    "star": _star,
    "cross": _cross,
    "heart": _heart,
    "moon": _moon,
    "arrow": _arrow,
}


@cache
def outline(shape: str) -> Points:
    """Polygon [N,2] of a shape, centred, its longer side from -1 to 1; y points down."""
    points = _OUTLINES[shape]()
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - (low + high) / 2) / ((high - low).max() / 2)


def placed(shape: str, centre: tuple[float, float], diameter: float, angle: float) -> Points:
    """The outline turned by `angle` (radians), scaled and moved; pixels [N,2]. The longer side stays `diameter`."""
    turn = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    points = outline(shape) @ turn
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - (low + high) / 2) / (high - low).max() * diameter + np.array(centre)


def coverage(points: Points, height: int, width: int) -> Plane:
    """How much of each pixel a polygon covers, [H,W] in 0…1."""
    plane = np.zeros((height, width), np.uint8)
    fixed = np.round((points - 0.5) * (1 << SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(plane, [fixed], 255, lineType=cv2.LINE_AA, shift=SUBPIXEL_BITS)
    return np.asarray(plane / np.float32(255), np.float32)


def fill_pattern(fill: str, x: Plane, y: Plane, diameter: float, angle: float) -> Plane:
    """Share of the second colour at offsets x, y from the centre (pixels), in 0…1; edges are about a pixel soft."""
    if fill == "plain":
        return np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    along = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    across = y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle))
    if fill == "striped":
        return _wave(along, diameter / 4.2)
    if fill == "ringed":
        return _wave(np.asarray(np.hypot(x, y), np.float32), diameter / 4.2)
    period = diameter / 3.6
    spread = np.hypot(_fold(along, period), _fold(across, period))
    return np.asarray(np.clip(0.31 * period - spread + 0.5, 0, 1), np.float32)


def _fold(offset: Plane, period: float) -> Plane:
    """Signed distance to the nearest multiple of `period`."""
    return np.asarray(offset - period * np.round(offset / period), np.float32)


def _wave(offset: Plane, period: float) -> Plane:
    """A soft square wave: 1 on half of each period."""
    return np.clip(np.abs(_fold(offset, period)) - period / 4 + 0.5, 0, 1).astype(np.float32)
