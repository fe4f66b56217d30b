"""Open pictures, kept for as long as they are asked about: by least recent use, and for a time."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

from gar_edge.runtime.gar import Gar
from gar_edge.runtime.scene import Scene
from gar_edge.runtime.serve.api_errors import ApiError
from gar_edge.runtime.serve.limits import Limits

_CONTENT = "content-"  # scenes that a request brought along: their ids are told to nobody


@dataclass
class KeptScene:
    """A scene and whose it is. bytes: of its pixels, as a picture and as tiles. warnings: of its opening."""

    id: str
    owner: str
    scene: Scene
    warnings: list[str]
    bytes: int
    used: float = field(default_factory=time.monotonic)


class SceneStore:
    """Scenes by id, and, for requests that bring their picture along, by owner and content. Any thread may call."""

    def __init__(self, gar: Gar, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._gar = gar
        self._limits = limits
        self._clock = clock
        self._scenes: OrderedDict[str, KeptScene] = OrderedDict()
        self._lock = Lock()

    def open(self, data: bytes, owner: str, *, max_tiles: int | None, warnings: list[str]) -> KeptScene:
        """Decode a picture under an id of its own; warnings: the list into which those of decoding go."""
        return self._keep(f"scene-{secrets.token_hex(12)}", data, owner, max_tiles, warnings)

    def of_content(self, data: bytes, owner: str, *, warnings: list[str]) -> KeptScene:
        """The scene of this very picture, where the same owner has asked about it lately, or a new one."""
        digest = hashlib.blake2b(data, digest_size=16, key=hashlib.sha256(owner.encode()).digest()).hexdigest()
        key = f"{_CONTENT}{digest}"
        with self._lock:
            kept = self._look(key)
        return kept or self._keep(key, data, owner, None, warnings)

    def get(self, key: str, owner: str) -> KeptScene:
        """`ApiError` (404) where there is none of this id for this owner any more."""
        with self._lock:
            kept = self._look(key)
        if kept is None or kept.owner != owner:
            raise ApiError(
                404, f"no scene {key[:40]} is open; post its picture to /v1/scenes again", code="scene_not_found"
            )
        return kept

    def drop(self, key: str, owner: str) -> None:
        """Let go of one; `ApiError` (404) where there is none."""
        self.get(key, owner)
        with self._lock:
            self._scenes.pop(key, None)

    def counts(self) -> tuple[int, int]:
        """How many are open, and their bytes."""
        with self._lock:
            self._tidy()
            return len(self._scenes), sum(kept.bytes for kept in self._scenes.values())

    def _keep(self, key: str, data: bytes, owner: str, max_tiles: int | None, warnings: list[str]) -> KeptScene:
        scene = self._gar.open(data, max_tiles=max_tiles)
        kept = KeptScene(key, owner, scene, list(warnings), scene.tiles.nbytes, self._clock())
        with self._lock:
            self._scenes[key] = kept
            self._scenes.move_to_end(key)
            self._tidy()
        return kept

    def _look(self, key: str) -> KeptScene | None:
        self._tidy()
        kept = self._scenes.get(key)
        if kept is not None:
            kept.used = self._clock()
            self._scenes.move_to_end(key)
        return kept

    def _tidy(self) -> None:
        """Drop what is too old, then what is too much; the newest stays, however large."""
        old = self._clock() - self._limits.scene_seconds
        for key in [key for key, kept in self._scenes.items() if kept.used <= old]:
            del self._scenes[key]
        size = sum(kept.bytes for kept in self._scenes.values())
        while len(self._scenes) > 1 and (len(self._scenes) > self._limits.scenes or size > self._limits.scene_bytes):
            key = self._dispensable()
            size -= self._scenes.pop(key).bytes

    def _dispensable(self) -> str:
        """Of the owner with the most scenes: one that nobody was promised, else the least recently used."""
        owners = Counter(kept.owner for kept in self._scenes.values())
        newest = next(reversed(self._scenes))
        own = [key for key, kept in self._scenes.items() if owners[kept.owner] == max(owners.values())]
        left = [key for key in own if key != newest] or [key for key in self._scenes if key != newest]
        return min(left, key=lambda key: not key.startswith(_CONTENT))  # the first of equals is the oldest
