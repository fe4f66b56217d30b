"""What a region may be given as."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from gar_edge.runtime.images.mask_images import MaskLike
from gar_edge.runtime.images.shape import Mask
from gar_edge.runtime.regions.cues import Cue


@runtime_checkable
class Marked(Protocol):
    """A region whose pixels are all known: `Runs`, `Polygons` and the regions of files."""

    def draw(self, width: int, height: int) -> Mask:
        """Bool [h,w]: at its own size where it has one, else that of the picture; `GarMaskError`."""


RegionLike = MaskLike | Marked | Cue
