"""Sizes agreed between whoever builds engines and whoever runs them: most of one run, and steps of a cache."""

from __future__ import annotations

TILES_AT_ONCE = 4  # bounds the attention scores' memory: of 4 tiles of the 1B 270 MiB in fp32
SELECTED_AT_ONCE = 16  # positions that one run may predict behind: a speculated continuation and the token before it
CAPACITY_STEP = 64  # cache capacities are multiples of this


def round_up(positions: int) -> int:
    """Slots of a cache for so many positions."""
    return -(-positions // CAPACITY_STEP) * CAPACITY_STEP
