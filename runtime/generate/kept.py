"""What answers leave for later ones, exactly, under one budget: features of tiles, and sequences with their KV caches.

The encoder sees one tile at a time and an empty mask adds nothing, so a tile's features depend on its pixels and its
own mask alone. The decoder is causal, so the cache of a prompt's beginning depends on that beginning alone.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.engines.protocol import Buffer
from gar_edge.runtime.generate.request import Request, TileKey
from gar_edge.runtime.model.sequence import TokenSequence


@dataclass(frozen=True)
class KeptSequence:
    """A sequence whose cache holds `ids`, in a prompt about `regions` (their digest) of a scene."""

    scene: int
    regions: bytes
    ids: NDArray[np.int64]
    sequence: TokenSequence

    def common(self, request: Request) -> int:
        """How many of a prompt's first ids the cache can spare it; none for other regions or another scene.

        At most one less than all, for the last one makes the logits; none where the features would still be needed,
        or where its memory is too small.
        """
        if (self.scene, self.regions) != (request.picture.key, request.regions.digest):
            return 0
        if self.sequence.capacity < request.positions:
            return 0
        length = min(len(self.ids), len(request.ids) - 1)
        differ = np.flatnonzero(self.ids[:length] != request.ids[:length])
        common = int(differ[0]) if len(differ) else length
        return common if common >= request.features_end else 0


@dataclass(frozen=True)
class _Entry:
    """Something that is kept: a tile's features [1,P,C], or a sequence."""

    value: Buffer | KeptSequence
    bytes: int


class KeptWork:
    """Tile features and sequences, the least recently used leaving first; shared by threads.

    Answers in the making come first: what they use of the budget is not there for keeping.
    """

    def __init__(self, budget: int) -> None:
        """budget: bytes to hold at most; 0 keeps nothing."""
        self._budget = budget
        self._entries: OrderedDict[TileKey | int, _Entry] = OrderedDict()  # sequences by a serial number
        self._scenes: dict[int, set[TileKey | int]] = {}
        self._spare: TokenSequence | None = None  # of an engine with one size of cache: memory and bindings to reuse
        self._kept = self._used = 0
        self._serial = itertools.count()
        self._gone: deque[int] = deque()  # scenes, noted by the garbage collector at any moment and in any thread
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """What is kept now."""
        with self._lock:
            self._tidy()
            return self._kept

    def tile(self, key: TileKey) -> Buffer | None:
        """Features of a tile under a mask."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return cast(Buffer, entry.value)

    def put_tile(self, key: TileKey, features: Buffer) -> None:
        with self._lock:
            if key not in self._entries:
                size = int(np.prod(features.shape)) * features.dtype.itemsize
                self._add(key, key[0], _Entry(features, size))

    def take(self, request: Request) -> tuple[TokenSequence, int] | None:
        """The sequence that spares a prompt most, and how many of its ids it holds. It is the caller's from now on."""
        with self._lock:
            best, most = None, 0
            for key in self._scenes.get(request.picture.key, ()):
                kept = self._entries[key].value
                if isinstance(kept, KeptSequence) and (common := kept.common(request)) > most:
                    best, most = key, common
            return None if best is None else (self._remove(best).sequence, most)

    def has_room(self, size: int, *, besides: int) -> bool:
        """Whether so much could be kept once an answer gives back `besides`."""
        with self._lock:
            return size <= self._budget - (self._used - besides)

    def settle(self, planned: int, kept: KeptSequence | None) -> None:
        """An answer is over: it uses `planned` bytes less, and may leave its sequence to whoever goes on from it."""
        with self._lock:
            self._used -= planned
            if kept is not None:
                self._add(next(self._serial), kept.scene, _Entry(kept, kept.sequence.bytes))

    def take_spare(self, capacity: int, planned: int) -> TokenSequence | None:
        """An empty sequence of this capacity in memory that nobody needs any more, of an engine with one size of cache.

        Where a new one of `planned` bytes would not fit the budget beside those that are kept, the least recently used
        is given up.
        """
        with self._lock:
            self._tidy()
            spare = self._spare
            if spare is not None:
                self._give_up_spare()
            else:
                oldest = next((key for key, one in self._entries.items() if isinstance(one.value, KeptSequence)), None)
                if oldest is not None and self._kept + self._used + planned > self._budget:
                    spare = self._remove(oldest).sequence
        if spare is None or not spare.fixed or spare.capacity != capacity:
            return None
        spare.restart()
        return spare

    def use(self, size: int) -> None:
        """Answers in the making use so many bytes more from now on."""
        with self._lock:
            self._used += size
            self._tidy()

    def nothing_in_use(self) -> None:
        """No answer is in the making any more, however those that were have ended."""
        with self._lock:
            self._used = 0

    def drop(self, scene: int) -> None:
        """Forget a scene that is gone. Never waits: the garbage collector may call while the lock is held."""
        self._gone.append(scene)
        while self._gone and self._lock.acquire(blocking=False):
            try:
                self._tidy()
            finally:
                self._lock.release()

    def close(self) -> None:
        """Forget everything, and keep nothing any more."""
        with self._lock:
            self._budget = 0
            self._tidy()

    def _add(self, key: TileKey | int, scene: int, entry: _Entry) -> None:
        self._entries[key] = entry
        self._scenes.setdefault(scene, set()).add(key)
        self._kept += entry.bytes
        self._tidy()

    def _remove(self, key: TileKey | int) -> Any:
        entry = self._entries.pop(key)
        scene = key[0] if isinstance(key, tuple) else cast(KeptSequence, entry.value).scene
        self._scenes[scene].discard(key)
        if not self._scenes[scene]:
            del self._scenes[scene]
        self._kept -= entry.bytes
        return entry.value

    def _tidy(self) -> None:
        """Let go of scenes that are gone, and of the oldest where the budget is spent."""
        while self._gone:
            for key in list(self._scenes.get(self._gone.popleft(), ())):
                value = self._remove(key)
                if isinstance(value, KeptSequence) and value.sequence.fixed and self._spare is None:
                    self._spare = value.sequence
                    self._kept += value.sequence.bytes
        while self._kept + self._used > self._budget and (self._entries or self._spare is not None):
            if self._spare is not None:
                self._give_up_spare()
            else:
                self._remove(next(iter(self._entries)))

    def _give_up_spare(self) -> None:
        if self._spare is not None:
            self._kept -= self._spare.bytes
            self._spare = None
