"""JSON from elsewhere, read field by field: what is not as it must be is named with its place in the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gar_edge.runtime.errors import GarError, GarMaskError


@dataclass(frozen=True)
class Field:
    """A value and the way to it, which errors name.

    source: the file, or what else the value comes from. error: the kind of error that is raised.
    """

    source: str
    value: Any
    where: str = ""
    error: type[GarError] = GarMaskError

    def __getitem__(self, key: str) -> Field:
        """A field of an object; its value is None where there is none."""
        if not isinstance(self.value, dict):
            raise self.wrong("an object")
        return replace(self, value=self.value.get(key), where=f"{self.where}.{key}".lstrip("."))

    def items(self) -> Iterator[Field]:
        """The elements of a list."""
        if not isinstance(self.value, list):
            raise self.wrong("a list")
        return (replace(self, value=value, where=f"{self.where}[{i}]") for i, value in enumerate(self.value))

    def text(self) -> str:
        if not isinstance(self.value, str) or not self.value.strip():
            raise self.wrong("a text")
        return self.value

    def whole(self, least: int = 0) -> int:
        if type(self.value) is not int or self.value < least:  # a bool is no number here
            raise self.wrong(f"a whole number from {least} on")
        return self.value

    def numbers(self, expected: str, *kinds: type) -> list[Any]:
        """A list of nothing but numbers of these types, as it is: there may be millions."""
        if not isinstance(self.value, list):
            raise self.wrong("a list")
        if {type(at) for at in self.value} <= set(kinds):
            return self.value
        raise next(item for item in self.items() if type(item.value) not in kinds).wrong(expected)

    def wrong(self, expected: str) -> GarError:
        """The error that says what stands here and what must."""
        found = "is missing" if self.value is None else f"is {_shortened(self.value)}"
        return self.error(f"{self.source}: {self.where or 'the file'} {found}; it must be {expected}")


def read_json(path: Path, error: type[GarError] = GarMaskError) -> Field:
    """The file's value; `error` where it is missing or not JSON."""
    try:
        return Field(str(path), json.loads(path.read_text("utf-8-sig")), error=error)
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror})") from None
    except (ValueError, RecursionError) as problem:
        reason = " ".join(str(problem).split())
        raise error(f"{path}: not JSON that can be read ({reason}); correct or remove it") from None


def _shortened(value: Any) -> str:
    text = json.dumps(value, default=repr, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}…"
