"""JSON files larger than memory: the lists at their top, element by element."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from gar_edge.runtime.errors import GarError, GarMaskError

_PIECE = 1 << 20  # characters that are read at a time
_LONGEST = 1 << 26  # characters of one element: beyond this the file is broken, or is not made of elements
_SPACE = " \t\n\r"
_AFTER = (*_SPACE, ",", "]", "}", ":")


def elements(path: Path, error: type[GarError] = GarMaskError) -> Iterator[tuple[str | None, int, Any]]:
    """What a JSON file holds, part by part: (member, place, value).

    Of a list its elements, with None for the member; of an object the elements of its lists, and its other members as
    they are, in place 0. Anything else is one value, with None. Memory is that of one element. `error` where the file
    is missing or not JSON, after what was read before that place.
    """
    with _read(path, error) as text:
        yield from text.parts()


def members(path: Path, error: type[GarError] = GarMaskError) -> Iterator[str | None]:
    """The names of an object's members, each before its value is read; None for a file that holds something else.

    A list without elements is told here, and by `elements` is not. `error` as there.
    """
    with _read(path, error) as text:
        yield from text.names()


@contextmanager
def _read(path: Path, error: type[GarError]) -> Iterator[_Text]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield _Text(file)
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror})") from None
    except (ValueError, RecursionError) as problem:  # not UTF-8 is one, too
        reason = " ".join(str(problem).split())
        raise error(f"{path}: not JSON that can be read ({reason}); correct or remove it") from None


class _Text:
    """A file's text, of which the window that is being decoded is in memory."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._window = ""
        self._at = 0
        self._before = 0  # characters that have left the window
        self._decode = json.JSONDecoder().raw_decode

    def parts(self) -> Iterator[tuple[str | None, int, Any]]:
        if self._next() == "[":
            yield from ((None, place, value) for place, value in self._list())
        elif self._next() == "{":
            for name in self._members():
                if self._next() == "[":
                    yield from ((name, place, value) for place, value in self._list())
                else:
                    yield name, 0, self._value()
        else:
            yield None, 0, self._value()
        if self._next():
            raise self._wrong("nothing more")

    def names(self) -> Iterator[str | None]:
        if self._next() != "{":
            yield None
            return
        for name in self._members():
            yield name
            if self._next() == "[":
                for _ in self._list():
                    pass
            else:
                self._value()

    def _members(self) -> Iterator[str]:
        """The names of an object's members; whoever takes one reads its value before the next."""
        self._take("{")
        if self._next() == "}":
            return self._take("}")
        while True:
            if self._next() != '"':
                raise self._wrong("a member's name")
            name = self._value()
            self._take(":")
            yield name
            if self._next() == "}":
                return self._take("}")
            self._take(",")

    def _list(self) -> Iterator[tuple[int, Any]]:
        self._take("[")
        if self._next() == "]":
            return self._take("]")
        place = 0
        while True:
            yield place, self._value()
            place += 1
            if self._next() == "]":
                return self._take("]")
            self._take(",")

    def _next(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            while self._at < len(self._window) and self._window[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._window):
                return self._window[self._at]
            if not self._more():
                return ""

    def _take(self, character: str) -> None:
        if self._next() != character:
            raise self._wrong(f"'{character}'")
        self._at += 1

    def _value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = self._decode(self._window, self._at)
            except json.JSONDecodeError as problem:
                if self._more():  # it may only be that the rest has not been read
                    continue
                raise ValueError(f"{problem.msg} at character {self._before + problem.pos}") from None
            if self._window[end : end + 1] not in _AFTER and self._more():  # "1." may be the beginning of a number
                continue
            self._at = end
            return value

    def _more(self) -> bool:
        """Read on, twice as much where what is there was not enough; whether there was more."""
        left = self._window[self._at :]
        if len(left) > _LONGEST:
            raise ValueError(f"no element ends within {_LONGEST} characters of character {self._before + self._at}")
        piece = self._file.read(max(_PIECE, len(left)))
        self._before += self._at
        self._window, self._at = left + piece, 0
        return bool(piece)

    def _wrong(self, expected: str) -> ValueError:
        return ValueError(f"expected {expected} at character {self._before + self._at}")
