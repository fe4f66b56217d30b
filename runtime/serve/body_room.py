"""Memory for requests' bodies: what has come of all of them together stays below a bound.

Where there is no room a body waits, unread, until another request is over. The one that began first goes on even then:
of several that come side by side each would otherwise wait for the others.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from gar_edge.runtime.serve.api_errors import RETRY, ApiError
from gar_edge.runtime.serve.limits import Limits


@dataclass(eq=False)
class Held:
    """Bytes of one request's body."""

    owner: str
    bytes: int = 0


class BodyRoom:
    """Of the event loop's thread alone."""

    def __init__(self, limits: Limits, *, share: float) -> None:
        """share: of the room that one owner may take."""
        self._each = limits.body_bytes
        self._all = limits.bodies_bytes
        self._per_owner = int(share * limits.bodies_bytes)
        self._patience = limits.room_seconds
        self._owners: Counter[str] = Counter()
        self._coming: dict[Held, None] = {}  # in their order
        self._changed = asyncio.Event()

    def begin(self, owner: str) -> Held:
        """A body that is about to come; `end` it."""
        held = Held(owner)
        self._coming[held] = None
        return held

    def check(self, size: int) -> None:
        """`ApiError` where a body is too large, known before it comes."""
        if size > self._each:
            raise ApiError(413, f"the body is larger than {self._each >> 20} MiB; send a smaller picture", code="body")

    async def hold(self, held: Held, size: int) -> None:
        """So many bytes more have come; waits where there is no room, and `ApiError` where there is none for long."""
        self.check(held.bytes + size)
        end = asyncio.get_running_loop().time() + self._patience
        while not self._fits(held, size):
            left = end - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except asyncio.TimeoutError:
                raise ApiError(
                    429, "too many large requests at once; ask again later", code="memory", headers=RETRY
                ) from None
        held.bytes += size
        self._owners[held.owner] += size

    def whole(self, held: Held) -> None:
        """All of it has come."""
        self._coming.pop(held, None)
        self._wake()

    def end(self, held: Held) -> None:
        """Its request is over."""
        self._coming.pop(held, None)
        self._owners[held.owner] -= held.bytes
        if not self._owners[held.owner]:
            del self._owners[held.owner]
        held.bytes = 0
        self._wake()

    def _fits(self, held: Held, size: int) -> bool:
        if next(iter(self._coming), None) is held:
            return True
        return self._owners.total() + size <= self._all and self._owners[held.owner] + size <= self._per_owner

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
