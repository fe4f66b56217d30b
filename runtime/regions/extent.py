"""Where a mask lies, in pixels."""

from __future__ import annotations

import numpy as np

from gar_edge.runtime.regions.rle import Mask


def pixel_box(mask: Mask) -> list[int]:
    """[left, upper, right, lower] of the marked pixels of [H,W], right and lower behind the last, as --box takes them.

    All zero where no pixel is marked.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return [0, 0, 0, 0]
    return [int(at) for at in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]
