"""One region of a picture, however it was given, as a mask."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.images.mask_images import NEARLY_ALL, load_mask
from gar_edge.runtime.images.shape import Mask, Turn, check_shape, match_mask
from gar_edge.runtime.regions.cues import Box, BoxMask, Cue, Points, Scribble, filled
from gar_edge.runtime.regions.foreign import understood
from gar_edge.runtime.regions.kinds import Marked, RegionLike
from gar_edge.runtime.regions.polygons import Polygons
from gar_edge.runtime.regions.segmenters.grabcut import grabcut

Segmenter = Callable[[NDArray[np.uint8], Cue], Mask]  # RGB [H,W,3] and a cue -> [H,W]


def find_mask(
    region: RegionLike | Any,
    image: NDArray[np.uint8],
    segment: Segmenter = grabcut,
    name: str = "region",
    *,
    turn: Turn | None = None,
) -> Mask:
    """The region of an RGB picture [H,W,3] as bool [H,W], with at least one pixel.

    Takes what `foreign.understood` takes, too. A mask of another size, but the picture's shape, is resized by nearest
    neighbour, with a warning. `GarMaskError` where the region cannot be read, is empty, of another shape, or does not
    lie in the picture; its text begins with `name`. turn: of the picture, as `load_picture` has it: coordinates and
    masks that do not tell whether they are of the turned or of the stored picture are taken for the turned one's, with
    a warning.
    """
    height, width = image.shape[:2]
    try:
        region = understood(region)
        if isinstance(region, (Box, BoxMask)) and region.size is not None:
            check_shape(region.size, (width, height), turn)
        if isinstance(region, (Box, Points, Scribble)):
            mask = segment(image, region)
        else:
            drawn = region.draw(width, height) if isinstance(region, Marked) else load_mask(region)
            if not drawn.any():
                raise GarMaskError("mask is empty: no pixel is set; mark the region with non-zero pixels")
            mask = match_mask(drawn, width, height, turn)
            _warn_of(drawn, mask, isinstance(region, (Polygons, BoxMask)), name)
    except GarMaskError as error:
        raise GarMaskError(f"{name}: {error}") from None
    if not mask.any():
        raise GarMaskError(f"{name}: nothing is left of the mask at the image's size")
    if turn_untold(region, turn):
        warnings.warn(
            f"{name}: the picture is {turn}; the region is taken for the upright picture's, {width}x{height}",
            stacklevel=3,
        )
    return mask


def turn_untold(region: RegionLike, turn: Turn | None) -> bool:
    """Whether nothing tells if a region is of the upright picture or of the stored one, which EXIF turned.

    A size tells, as far as the two differ; a mask has one by itself.
    """
    told = not isinstance(region, Points) and getattr(region, "size", turn) is not None
    return turn is not None and not (turn.shows and told)


def box_mask(image: NDArray[np.uint8], cue: Cue) -> Mask:
    """The segmenter that takes a box as it is: bool [H,W], true inside. Cues without a box go to GrabCut."""
    height, width = image.shape[:2]
    bounds = cue.marks(width, height).bounds
    return grabcut(image, cue) if bounds is None else filled(bounds, width, height)


def _warn_of(drawn: Mask, mask: Mask, outlined: bool, name: str) -> None:
    if drawn.shape != mask.shape:
        (h, w), (height, width) = drawn.shape, mask.shape
        warnings.warn(
            f"{name}: mask is {w}x{h}, the image {width}x{height}: resized by nearest neighbour", stacklevel=4
        )
    rim = mask[0].all() and mask[-1].all() and mask[:, 0].all() and mask[:, -1].all()
    share = np.count_nonzero(mask) / mask.size
    if not outlined and (rim or share > NEARLY_ALL):
        warnings.warn(
            f"{name}: {100 * share:.1f} % of the picture is marked, with its whole border; is the mask inverted?",
            stacklevel=4,
        )
