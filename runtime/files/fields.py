"""JSON from elsewhere, read part by part: what is not as it must be is named with its place in the file.

msgspec checks the values; a `Field` knows where they stand, so that one bad entry can be told from its neighbours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, overload

import msgspec

from gar_edge.runtime.errors import GarError, GarMaskError

T = TypeVar("T")
Text = Annotated[str, msgspec.Meta(pattern=r"\S")]
Side = Annotated[float, msgspec.Meta(ge=1, le=2**53, multiple_of=1)]  # a whole number, which some tools write as 640.0

_AT = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.+)`")
_STEP = re.compile(r"\.?([^.\[\]]+)")
_TYPES = re.compile(r"Expected `(?P<types>[^`]+)`(?: >= (?P<least>-?\d+))?")
_WORDS = {"array": "a list", "object": "an object", "str": "a text", "int": "a whole number", "float": "a number"}


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

    @overload
    def to(self, kind: type[T], expected: str | None = None) -> T: ...

    @overload
    def to(self, kind: Any, expected: str | None = None) -> Any: ...

    def to(self, kind: Any, expected: str | None = None) -> Any:
        """The value as msgspec converts it to a type; `error` names the part of it that does not fit.

        expected: what the whole value must be, in words, where its type says too little.
        """
        try:
            return msgspec.convert(self.value, kind)
        except msgspec.ValidationError as problem:
            raise self._misfit(str(problem), expected) from None

    def wrong(self, expected: str) -> GarError:
        """The error that says what stands here and what must."""
        found = "is missing" if self.value is None else f"is {_shortened(self.value)}"
        return self.error(f"{self.source}: {self.where or 'the file'} {found}; it must be {expected}")

    def _misfit(self, problem: str, expected: str | None) -> GarError:
        match = _AT.fullmatch(problem)
        what, path = (match["what"], match["path"] or "") if match else (problem, "")
        at = self
        for step in _STEP.findall(path):
            at = list(at.items())[int(step)] if isinstance(at.value, list) else at[step]
        if missing := _MISSING.fullmatch(what):
            return at[missing[1]].wrong(expected or "given")
        if expected is not None and (at is self or not what.startswith("Expected")):
            return self.wrong(expected)
        return at.wrong(_in_words(what))


def read_json(path: Path, error: type[GarError] = GarMaskError) -> Field:
    """The file's value; `error` where it is missing or not JSON."""
    try:
        return Field(
            str(path), json.loads(path.read_text("utf-8-sig")), error=error
        )  # NaN passes, as it does elsewhere
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror})") from None
    except (ValueError, RecursionError) as problem:
        reason = " ".join(str(problem).split())
        raise error(f"{path}: not JSON that can be read ({reason}); correct or remove it") from None


def json_within(field: Field) -> Any:
    """The value that a field's text is the JSON of; the field's kind of error where it is none."""
    try:
        return json.loads(field.to(Text))
    except (ValueError, RecursionError) as problem:
        raise field.error(f"{field.source}: {field.where} is not JSON ({' '.join(str(problem).split())})") from None


def _in_words(what: str) -> str:
    """Msgspec's "Expected `int` >= 1, got `str`" as what must stand there."""
    match = _TYPES.match(what)
    if match is None:
        return "a number within range"
    kinds = [_WORDS.get(kind, kind) for kind in match["types"].split(" | ") if kind != "null"]
    if "multiple" in what:
        kinds = ["a whole number"]
    elif _WORDS["float"] in kinds:
        kinds.remove(_WORDS["int"]) if _WORDS["int"] in kinds else None
    return " or ".join(kinds) + (f" from {match['least']} on" if match["least"] else "")


def _shortened(value: Any) -> str:
    text = json.dumps(value, default=repr, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}…"
