"""Whether the values of an image are those of one region: a soft edge between two, or more areas than that."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.images.shape import Mask

LOW, HIGH = 1 / 8, 7 / 8  # of full scale: ground and region (16 and 235 in video)
EDGE = 1 / 24  # of the longer side: how far from its middle a soft edge may reach
LEAST_EDGE = 3  # pixels
STRAY = 0.02  # of the smaller of region and ground: what may be neither, away from the edge
MANY = 32  # values: those of a label image are fewer, or areas of them lie in between
ALIKE = 64  # grey levels by which a region's colour may vary in each channel
_COUNTED = 1 << 24  # values below it are marked off in a table, all colours among them
VARIED = 0.01  # of a region's pixels that may vary more


def to_8_bit(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """16-bit values at 8 bits, 65535 becoming 255, rounded to the nearest; what is beyond is clipped."""
    return ((values.astype(np.int32).clip(0, 65535) + 128) // 257).astype(np.uint8)  # no value lies between two


def distinct(values: NDArray[np.integer]) -> NDArray[np.int64]:
    """The values that occur, in their order."""
    if values.size and int(values.min()) >= 0 and int(values.max()) < _COUNTED:
        occurs = np.zeros(int(values.max()) + 1, np.bool_)
        occurs[values.ravel()] = True  # sorting millions takes ten times as long
        return np.flatnonzero(occurs).astype(np.int64)
    return np.unique(values).astype(np.int64)


def soft_edged(values: NDArray[np.int64], full: int) -> bool:
    """Whether a plane [H,W] from 0 to `full` is one region, its edge soft: all else lies near ground or region."""
    import cv2

    middle = (values > LOW * full) & (values < HIGH * full)
    mask = values >= full / 2
    smaller = min(int(mask.sum()), int((~mask).sum()))
    if not (values <= LOW * full).any() or not (values >= HIGH * full).any():
        return False
    reach = 2 * max(LEAST_EDGE, round(EDGE * max(values.shape))) + 1
    marked = cv2.boxFilter(mask.astype(np.uint8), cv2.CV_32S, (reach, reach), normalize=False)
    edge = (marked > 0) & (marked < reach * reach)
    return int((middle & ~edge).sum()) <= STRAY * smaller


def few_areas(values: NDArray[np.int64], brightness: NDArray[np.int64] | None = None) -> bool:
    """Whether at most two of the values [H,W] fill areas, as opposed to label images; noise and edges fill none.

    The darkest and the brightest value count as filling one: a thin rim of them may be a label. `brightness` [H,W] says
    which these are, where it is not the values' own order. Images of more values than labels have are not looked at.
    """
    import cv2

    found = distinct(values)
    if len(found) > MANY:
        return True
    indices = np.searchsorted(found, values).astype(np.uint8)
    square = np.ones((3, 3), np.uint8)
    lowest = cv2.erode(indices, square, borderType=cv2.BORDER_REPLICATE)
    highest = cv2.dilate(indices, square, borderType=cv2.BORDER_REPLICATE)
    order = values if brightness is None else brightness
    ends = indices.flat[[int(order.argmin()), int(order.argmax())]]
    return len(np.union1d(indices[lowest == highest], ends)) <= 2


def one_colour(colours: NDArray[np.uint8], mask: Mask) -> bool:
    """Whether what lies well inside a mask [H,W] is of one colour, as a drawn region is and a photograph is not."""
    import cv2

    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    marked = colours[inner if inner.any() else mask][:, :3].astype(np.int16)
    if not len(marked):
        return False
    away = np.abs(marked - np.median(marked, axis=0)).max(axis=1)
    return float((away > ALIKE).mean()) <= VARIED
