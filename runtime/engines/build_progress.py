"""How far an engine that is being built has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class BuildStep:
    """A step of building one graph's engine: the innermost phase, how far it is, and seconds since the beginning."""

    graph: str
    phase: str
    done: int
    total: int
    seconds: float


Watch = Callable[[BuildStep], None]
