"""What an answer may take over from earlier ones, exactly.

The encoder sees one tile at a time and an empty mask adds nothing, so a tile's features depend on its pixels and its
own mask alone. The decoder is causal, so the cache of a prompt's beginning depends on that beginning alone.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.engines.protocol import Backend, Buffer
from gar_edge.runtime.model.sequence import TokenSequence
from gar_edge.runtime.model.vision import VisionRunner

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

    def close(self) -> None:
        """Forget everything, and keep nothing any more."""
        with self._lock:
            self._entries.clear()
            self._budget = self.bytes = 0

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
    masks: Sequence[NDArray[np.bool_]],
    check: Callable[[], None],
) -> Iterator[tuple[Buffer, int]]:
    """Features [T,P,C] of a scene's tiles under each mask [T,h,w], and how many tiles were encoded for the first time.

    What is missing for any of the masks is encoded at once, when the first features are asked for.
    """
    keys = [[(scene, tile, _digest(mask[tile])) for tile in range(len(pixels))] for mask in masks]
    rows = {key: row for key in itertools.chain(*keys) if (row := cache.get(key)) is not None}
    fresh_for: list[int] = []
    missing: dict[TileKey, NDArray[np.bool_]] = {}
    for mask, tiles in zip(masks, keys, strict=True):
        added = {key: mask[key[1]] for key in tiles if key not in rows and key not in missing}
        missing.update(added)
        fresh_for.append(len(added))
    if missing:
        which = [tile for _, tile, _ in missing]
        fresh = vision.encode(pixels[which], np.stack(list(missing.values())), check)
        for place, key in enumerate(missing):
            row = backend.empty((1, *fresh.shape[1:]), fresh.dtype)  # a copy: a view would keep all tiles alive
            row.copy_from(fresh.rows(place, place + 1))
            rows[key] = row
            cache.put(key, row)
        if len(masks) == 1 and len(missing) == len(pixels):
            yield fresh, len(missing)
            return
    for tiles, count in zip(keys, fresh_for, strict=True):
        features = backend.empty((len(tiles), *rows[tiles[0]].shape[1:]), rows[tiles[0]].dtype)
        for place, key in enumerate(tiles):
            features.rows(place, place + 1).copy_from(rows[key])
        yield features, count


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
        self._open = True
        self._lock = threading.Lock()

    def take(self) -> Kept | None:
        """The kept sequence, to be continued if it is about the same, or else used for its memory."""
        with self._lock:
            kept, self._kept = self._kept, None
        return kept

    def put(self, kept: Kept) -> None:
        with self._lock:
            self._kept = kept if self._open else None

    def close(self) -> None:
        """Forget the sequence, and keep none any more."""
        with self._lock:
            self._kept, self._open = None, False

    def drop(self, scene: int) -> None:
        """Forget a scene that is gone."""
        with self._lock:
            if self._kept is not None and self._kept.scene == scene:
                self._kept = None


def _digest(mask: NDArray[np.bool_]) -> bytes:
    return hashlib.blake2b(np.packbits(mask).tobytes(), digest_size=16).digest() if mask.any() else b""


def _size(buffer: Buffer) -> int:
    return int(np.prod(buffer.shape)) * buffer.dtype.itemsize
