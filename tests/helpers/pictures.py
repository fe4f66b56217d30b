"""Pictures without a meaning, and a region of them."""

from __future__ import annotations

import numpy as np


def noise(seed: int) -> np.ndarray:
    """RGB [90,130,3], the same for the same seed."""
    return np.random.default_rng(seed).integers(0, 256, (90, 130, 3), np.uint8)


def middle(image: np.ndarray) -> np.ndarray:
    """A mask of a rectangle inside a picture of `noise`."""
    mask = np.zeros(image.shape[:2], np.bool_)
    mask[20:60, 30:90] = True
    return mask
