"""How long a request's regions are worked at: until its client leaves, its time is over, or the server stops."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from gar_edge.runtime.serve.api_errors import ApiError


class Patience:
    """Asked between two pieces of work, by the thread that does them; ended from any other."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._seconds = seconds
        self._over = False

    def check(self) -> None:
        """`ApiError` where the work is not to go on."""
        if self._over:
            raise ApiError(503, "the server is stopping; ask again later", code="stopping")
        if time.monotonic() > self._end:
            raise ApiError(
                400,
                f"finding the regions took over {self._seconds:g} s; ask about fewer at once, or a smaller picture",
                param="regions",
            )

    def end(self) -> None:
        """Nobody waits any more."""
        self._over = True


class Readers:
    """Threads that decode pictures and cut out regions, and the patience of those that are at work.

    More would take cores from the engine. Where owners are keys, none has more than one: the others' small pictures do
    not wait behind one's large ones.
    """

    def __init__(self, count: int, *, keys: bool) -> None:
        self._all = anyio.CapacityLimiter(count)
        self._keys = keys
        self._owners: dict[str, anyio.CapacityLimiter] = {}
        self._working: set[Patience] = set()

    def of(self, owner: str) -> anyio.CapacityLimiter:
        """What limits an owner's threads."""
        if not self._keys:
            return self._all
        return self._owners.setdefault(owner, anyio.CapacityLimiter(1))

    @contextmanager
    def told(self, patience: Patience) -> Iterator[None]:
        """While this lasts, `end` reaches it."""
        self._working.add(patience)
        try:
            yield
        finally:
            patience.end()
            self._working.discard(patience)

    def end(self) -> None:
        """All work is to end."""
        for patience in list(self._working):
            patience.end()
