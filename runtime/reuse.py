"""What an answer may take over from earlier ones, exactly.

The encoder sees one tile at a time and an empty mask adds nothing, so a tile's features depend on its pixels and its
own mask alone. The decoder is causal, so the cache of a prompt's beginning depends on that beginning alone.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.backend import Backend, Buffer
from gar_edge.runtime.encode import VisionRunner
from gar_edge.runtime.sequence import TokenSequence

Regions = Mapping[int, NDArray[np.bool_]]
TileKey = tuple[int, int, bytes]  # scene, tile, digest of the tile's mask


class FeatureCache:
    """Features of single tiles, [1,P,C] each, the least recently used leaving first; shared by threads."""

    def __init__(self, budget: int) -> None:
        """budget: bytes to hold at most; 0 keeps nothing."""
        self._budget = budget
        self._entries: OrderedDict[TileKey, Buffer] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0

    def get(self, key: TileKey) -> Buffer | None:
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
            return found

    def put(self, key: TileKey, features: Buffer) -> None:
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = features
            self.bytes += _size(features)
            while self.bytes > self._budget:
                _, oldest = self._entries.popitem(last=False)
                self.bytes -= _size(oldest)

    def drop(self, scene: int) -> None:
        """Forget a scene that is gone."""
        with self._lock:
            for key in [key for key in self._entries if key[0] == scene]:
                self.bytes -= _size(self._entries.pop(key))


def encode_tiles(
    backend: Backend,
    vision: VisionRunner,
    cache: FeatureCache,
    scene: int,
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    check: Callable[[], None],
) -> tuple[Buffer, int]:
    """Features [T,P,C] of a scene's tiles under a mask [T,h,w], and how many tiles had to be encoded for them."""
    keys = [(scene, tile, _digest(mask[tile])) for tile in range(len(pixels))]
    rows = [cache.get(key) for key in keys]
    missing = [tile for tile, row in enumerate(rows) if row is None]
    if missing:
        fresh = vision.encode(pixels[missing], mask[missing], check)
        for place, tile in enumerate(missing):
            row = backend.empty((1, *fresh.shape[1:]), fresh.dtype)  # a copy: a view would keep all tiles alive
            row.copy_from(fresh.rows(place, place + 1))
            rows[tile] = row
            cache.put(keys[tile], row)
        if len(missing) == len(pixels):
            return fresh, len(missing)
    known = [row for row in rows if row is not None]
    features = backend.empty((len(known), *known[0].shape[1:]), known[0].dtype)
    for tile, row in enumerate(known):
        features.rows(tile, tile + 1).copy_from(row)
    return features, len(missing)


@dataclass(frozen=True)
class Kept:
    """A sequence whose cache holds `ids`, asked about `regions` of a scene."""

    scene: int
    regions: Regions
    ids: NDArray[np.int64]
    sequence: TokenSequence

    def common(self, scene: int, regions: Regions, ids: NDArray[np.int64]) -> int:
        """How many of a prompt's first ids the cache holds; none for other regions or another scene.

        At most one less than all, for the last one makes the logits.
        """
        if self.scene != scene or list(self.regions) != list(regions):
            return 0
        if not all(np.array_equal(self.regions[number], mask) for number, mask in regions.items()):
            return 0
        length = min(len(self.ids), len(ids) - 1)
        differ = np.flatnonzero(self.ids[:length] != ids[:length])
        return int(differ[0]) if len(differ) else length


class KeptSequence:
    """The place of one sequence: the last that was asked. Whoever takes it owns it until it is put back."""

    def __init__(self) -> None:
        self._kept: Kept | None = None
        self._lock = threading.Lock()

    def take(self) -> Kept | None:
        """The kept sequence, to be continued if it is about the same, or else used for its memory."""
        with self._lock:
            kept, self._kept = self._kept, None
        return kept

    def put(self, kept: Kept) -> None:
        with self._lock:
            self._kept = kept

    def drop(self, scene: int) -> None:
        """Forget a scene that is gone."""
        with self._lock:
            if self._kept is not None and self._kept.scene == scene:
                self._kept = None


def _digest(mask: NDArray[np.bool_]) -> bytes:
    return hashlib.blake2b(np.packbits(mask).tobytes(), digest_size=16).digest() if mask.any() else b""


def _size(buffer: Buffer) -> int:
    return int(np.prod(buffer.shape)) * buffer.dtype.itemsize
