"""The standard streams, fit for anything: closed ones lead nowhere, and what their encoding lacks is escaped."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from typing import Any, TextIO

# What the commands' own texts and bars hold beyond ASCII, where a terminal knows no more.
_PLAIN = {"…": "...", "✓": "ok", "✗": "x", "–": "-", "—": "-", "×": "x", "→": "->", "≥": ">=", "≤": "<=", "━": "-"}
_ERRORS = "gar-edge.plain"


def mend_streams() -> None:
    """To be called once, before anything is printed or opened.

    A closed descriptor is opened on the null device: the next file would take its number, and with it whatever a
    library prints there.
    """
    codecs.register_error(_ERRORS, _plain)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if mode == "r" else _ERRORS)


def to_json(value: Any, stream: TextIO) -> str:
    """One line of JSON in characters that the stream has."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(stream.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return json.dumps(value)
    return text


def drop(*names: str) -> None:
    """Let go of output that nobody takes: Python must not complain of it at exit."""
    for name in names:
        setattr(sys, name, None)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """The codec's answer to characters it lacks: a plain likeness, or the escape of JSON and Python."""
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end]
    return "".join(_PLAIN.get(one) or json.dumps(one)[1:-1] for one in found), error.end
