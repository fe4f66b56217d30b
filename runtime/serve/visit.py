"""A request on its way through the server."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from gar_edge.runtime.serve.admission import Ticket


@dataclass
class Visit:
    """One request on its way: what handlers may know of it, and what the log will tell."""

    id: str
    owner: str = ""
    ticket: Ticket | None = None
    begun: float = field(default_factory=time.perf_counter)
    status: int = 0
    received: int = 0
    sent: int = 0
    told: dict[str, Any] = field(default_factory=dict)  # by handlers, for the log
    gone: bool = False  # the client
