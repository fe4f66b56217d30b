"""One JSON line per request, without pictures or texts unless they are wished for."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from gar_edge.runtime.serve.visit import Visit

QUIET = frozenset({"/healthz", "/readyz", "/metrics", "/page/{name}", "/favicon.ico"})  # asked all the time


class RequestLog:
    """Writes lines by `write`; texts: whether questions and answers stand in them."""

    def __init__(self, write: Callable[[str], None], *, texts: bool = False) -> None:
        self._write = write
        self.texts = texts

    def request(self, visit: Visit, *, method: str, route: str, client: Sequence[Any] | None) -> None:
        """A request that is over. client: address and port."""
        if route in QUIET and visit.status < 400:
            return
        self._line(
            request=visit.id,
            client=client[0] if client else None,
            owner=visit.owner or None,
            method=method,
            route=route,
            status=visit.status,
            milliseconds=round((time.perf_counter() - visit.begun) * 1e3, 3),
            received=visit.received,
            sent=visit.sent,
            **visit.told,
        )

    def failed(self, request: str, error: BaseException) -> None:
        """What went wrong inside, for whoever runs the server."""
        self._line(request=request, error="".join(traceback.format_exception(error)))

    def event(self, name: str, **fields: Any) -> None:
        """Something about the server itself."""
        self._line(event=name, **fields)

    def _line(self, **fields: Any) -> None:
        self._write(json.dumps({"time": round(time.time(), 3), **fields}))
