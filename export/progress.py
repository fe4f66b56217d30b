"""How long work tells what it is doing, without knowing who listens."""

from __future__ import annotations

from typing import Protocol

BYTES, STEPS = "bytes", "steps"


class Progress(Protocol):
    """A listener of an export."""

    def begin(self, what: str, total: int | None = None, unit: str = BYTES) -> None:
        """A new piece of work; `total` units of it will be advanced, None where nobody can tell."""
        ...

    def advance(self, amount: int) -> None:
        """So many more units are done."""
        ...


class Silent:
    """Nobody listens."""

    def begin(self, what: str, total: int | None = None, unit: str = BYTES) -> None:
        pass

    def advance(self, amount: int) -> None:
        pass
