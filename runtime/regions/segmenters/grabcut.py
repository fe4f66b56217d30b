"""Cues to masks by GrabCut (Rother, Kolmogorov and Blake 2004), as OpenCV has it.

Colours inside and outside are modelled as mixtures, and the cheapest cut between them is searched. What a box holds may
be the region, what it does not hold is not. Points and strokes are certain; what is connected to them and of their
colour is the first guess at the rest.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.images.shape import Mask, fit_mask
from gar_edge.runtime.regions.cues import Bounds, Cue, Marks, Pixels, spaced

Labels = NDArray[np.uint8]  # OpenCV's GC_BGD, GC_FGD, GC_PR_BGD, GC_PR_FGD

LONGEST = 512  # pixels: a larger window is cut at this size, which bounds time and memory
ROUNDS = 5  # of modelling and cutting
SURROUNDINGS = 0.5  # of the box's sides, seen on each side of it
POINT = 0.006  # radius that a point makes certain, of the window's longer side
ALIKE = 18  # grey levels in each channel by which the first guess may differ from its point
SEEDS = 32  # points at most from which the first guess spreads
LEAST_SAMPLES = 8  # pixels: fewer give no colours to model
LEAST_SHARE = 0.03  # of a box: a cut that leaves less has lost the region


def grabcut(image: NDArray[np.uint8], cue: Cue) -> Mask:
    """The region of an RGB picture [H,W,3] that a box, points or a scribble means, as bool [H,W].

    A box in which nothing can be told apart is the mask itself, with a warning. `GarMaskError` where the cue does not
    lie in the picture.
    """
    import cv2

    height, width = image.shape[:2]
    marks = cue.marks(width, height)
    x1, y1, x2, y2 = window = _window(marks.bounds, width, height)
    part = image[y1:y2, x1:x2].copy()  # OpenCV wants it contiguous and writable
    shrink = min(1.0, LONGEST / max(part.shape[:2]))
    size = max(1, round(part.shape[1] * shrink)), max(1, round(part.shape[0] * shrink))
    small = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8) if shrink < 1 else part
    mask = np.zeros((height, width), np.bool_)
    mask[y1:y2, x1:x2] = fit_mask(_cut(small, _seen(marks, window, size), cue), x2 - x1, y2 - y1)
    return mask


def _window(bounds: Bounds | None, width: int, height: int) -> Bounds:
    """The part of the picture that is looked at: a box and what surrounds it, or everything."""
    if bounds is None:
        return 0, 0, width, height
    x1, y1, x2, y2 = bounds
    beside, above = round((x2 - x1) * SURROUNDINGS) + 2, round((y2 - y1) * SURROUNDINGS) + 2
    return max(x1 - beside, 0), max(y1 - above, 0), min(x2 + beside, width), min(y2 + above, height)


def _seen(marks: Marks, window: Bounds, size: tuple[int, int]) -> Marks:
    """The marks in the pixels of the window at this size (width, height); those outside it are dropped."""
    corner, shape = np.array(window[:2]), np.array(window[2:]) - window[:2]

    def points(pixels: Pixels) -> Pixels:
        placed = pixels - corner
        return (placed[((placed >= 0) & (placed < shape)).all(axis=1)] * size) // shape

    if marks.bounds is None:
        return Marks(None, points(marks.inside), points(marks.outside))
    low = (np.array(marks.bounds[:2]) - corner) * size // shape
    high = -((np.array(marks.bounds[2:]) - corner) * size // -shape)
    return Marks((int(low[0]), int(low[1]), int(high[0]), int(high[1])), points(marks.inside), points(marks.outside))


def _cut(image: NDArray[np.uint8], marks: Marks, cue: Cue) -> Mask:
    """The region in the window's pixels."""
    import cv2

    labels = _first_guess(image, marks)
    guess = _is_region(labels)
    if min(int(guess.sum()), int((~guess).sum())) >= LEAST_SAMPLES:
        cv2.setRNGSeed(0)  # the mixtures begin with k-means from random centres: the same cue, the same mask
        mixture = np.zeros((1, 65))
        whole = (0, 0, *image.shape[1::-1])  # not read in this mode
        cv2.grabCut(image, labels, whole, mixture, mixture.copy(), ROUNDS, cv2.GC_INIT_WITH_MASK)
        found = _is_region(labels)
        if marks.bounds is None:
            return _holding(found, marks.inside)
        if found.sum() > LEAST_SHARE * guess.sum():
            return found
    if marks.bounds is not None:
        warnings.warn(f"box {cue}: nothing in it stands out from its surroundings; the box is the mask", stacklevel=4)
    return guess


def _first_guess(image: NDArray[np.uint8], marks: Marks) -> Labels:
    """What is certain and what is likely, as GrabCut takes it."""
    import cv2

    if marks.bounds is None:
        labels = np.full(image.shape[:2], cv2.GC_PR_BGD, np.uint8)
        labels[_alike(image, spaced(marks.inside, SEEDS))] = cv2.GC_PR_FGD
    else:
        labels = np.full(image.shape[:2], cv2.GC_BGD, np.uint8)
        x1, y1, x2, y2 = marks.bounds
        labels[y1:y2, x1:x2] = cv2.GC_PR_FGD
    labels[_dots(marks.outside, labels.shape)] = cv2.GC_BGD
    labels[_dots(marks.inside, labels.shape)] = cv2.GC_FGD
    return labels


def _alike(image: NDArray[np.uint8], seeds: Pixels) -> Mask:
    """All pixels connected to a seed that are of nearly its colour."""
    import cv2

    framed = np.zeros((image.shape[0] + 2, image.shape[1] + 2), np.uint8)
    found = np.zeros(image.shape[:2], np.bool_)
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (1 << 8)
    for x, y in seeds:
        framed[:] = 0
        cv2.floodFill(image, framed, (int(x), int(y)), 0, (ALIKE,) * 3, (ALIKE,) * 3, flags)
        found |= framed[1:-1, 1:-1] > 0
    return found


def _dots(pixels: Pixels, shape: tuple[int, ...]) -> Mask:
    """The pixels and what lies so near that it goes with them."""
    import cv2

    radius = round(max(shape) * POINT)
    plane = np.zeros(shape, np.uint8)
    plane[pixels[:, 1], pixels[:, 0]] = 1
    return cv2.dilate(plane, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)) > 0


def _holding(found: Mask, pixels: Pixels) -> Mask:
    """The connected parts in which one of the pixels lies: like colours elsewhere are other things."""
    import cv2

    _, parts = cv2.connectedComponents(found.astype(np.uint8))
    return found & np.isin(parts, np.unique(parts[pixels[:, 1], pixels[:, 0]]))


def _is_region(labels: Labels) -> Mask:
    import cv2

    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
