"""One region of a picture, however it was given, as a mask."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.images.loading import MaskLike, fit_mask, load_mask
from gar_edge.runtime.regions.cues import Box, Cue, Points, Scribble
from gar_edge.runtime.regions.rle import Mask
from gar_edge.runtime.regions.segmenters.grabcut import grabcut


@runtime_checkable
class Marked(Protocol):
    """A region whose pixels are all known: `Runs`, `Polygons` and the regions of files."""

    def draw(self, width: int, height: int) -> Mask:
        """Bool [h,w]: at its own size where it has one, else that of the picture; `GarMaskError`."""


RegionLike = MaskLike | Marked | Cue
Segmenter = Callable[[NDArray[np.uint8], Cue], Mask]  # RGB [H,W,3] and a cue -> [H,W]


def find_mask(region: RegionLike, image: NDArray[np.uint8], segment: Segmenter = grabcut, name: str = "region") -> Mask:
    """The region of an RGB picture [H,W,3] as bool [H,W], with at least one pixel.

    A mask of another size is resized by nearest neighbour, with a warning. `GarMaskError` where the region cannot be
    read, is empty, or does not lie in the picture; its text begins with `name`.
    """
    height, width = image.shape[:2]
    try:
        if isinstance(region, (Box, Points, Scribble)):
            return segment(image, region)
        mask = region.draw(width, height) if isinstance(region, Marked) else load_mask(region)
    except GarMaskError as error:
        raise GarMaskError(f"{name}: {error}") from None
    if not mask.any():
        raise GarMaskError(f"{name}: mask is empty: no pixel is set; mark the region with non-zero pixels")
    if mask.shape == (height, width):
        return mask
    warnings.warn(
        f"{name}: mask is {mask.shape[1]}x{mask.shape[0]}, the image {width}x{height}: resized by nearest neighbour",
        stacklevel=3,
    )
    fitted = fit_mask(mask, width, height)
    if not fitted.any():
        raise GarMaskError(f"{name}: nothing is left of the mask at the image's size")
    return fitted


def box_mask(image: NDArray[np.uint8], cue: Cue) -> Mask:
    """The segmenter that takes a box as it is: bool [H,W], true inside. Cues without a box go to GrabCut."""
    height, width = image.shape[:2]
    marks = cue.marks(width, height)
    if marks.bounds is None:
        return grabcut(image, cue)
    x1, y1, x2, y2 = marks.bounds
    mask = np.zeros((height, width), np.bool_)
    mask[y1:y2, x1:x2] = True
    return mask
