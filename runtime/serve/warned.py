"""Warnings of the runtime, brought to the request that they are about."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from gar_edge.runtime.files.addresses import shown

_heard: ContextVar[list[str] | None] = ContextVar("gar_edge_warnings", default=None)


@contextmanager
def hearing() -> Iterator[list[str]]:
    """Warnings that are raised inside, also in threads that were started from there with this context."""
    heard: list[str] = []
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)


@contextmanager
def delivered() -> Iterator[None]:
    """While this lasts, warnings of the process reach whoever hears; all others go where they went.

    `warnings.catch_warnings` would not do: its state is the process's, whichever thread warns.
    """
    before = warnings.showwarning

    def show(message: Any, category: Any, *rest: Any, **more: Any) -> None:
        heard = _heard.get()
        if heard is None or not issubclass(category, UserWarning):
            before(message, category, *rest, **more)
        elif (text := shown(str(message))) not in heard:
            heard.append(text)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield
