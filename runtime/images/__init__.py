"""Pictures and masks as arrays, and the tiles that the encoder takes of them."""

from __future__ import annotations

from gar_edge.runtime.images.loading import ImageLike, load_image
from gar_edge.runtime.images.mask_images import MaskLike, load_labels, load_mask

__all__ = ["ImageLike", "MaskLike", "load_image", "load_labels", "load_mask"]
