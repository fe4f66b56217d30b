"""What an answer must look like, and what a program makes of it; the guide (`guide.py`) holds answers to it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.generate.closing import closed

MOST_BYTES = 1 << 18  # of a structure's text

Kind = Literal["schema", "regex", "grammar"]
Schema = Mapping[str, Any] | type[Any]  # JSON Schema, or a pydantic model


@dataclass(frozen=True)
class Structure:
    """`source`: JSON Schema as JSON, a regular expression, or a Lark grammar; `read`: an answer's text to its value."""

    kind: Kind
    source: str
    read: Callable[[str], Any]

    @classmethod
    def of(
        cls, *, schema: Schema | None, regex: str | None, choices: Sequence[str], grammar: str | None
    ) -> Structure | None:
        """The one that is given, None where none is; `GarPromptError` for several, and for what cannot be one."""
        kinds = {"schema": schema, "regex": regex, "choices": choices or None, "grammar": grammar}
        given = [name for name, value in kinds.items() if value is not None]
        if len(given) > 1:
            raise GarPromptError(f"{' and '.join(given)} were given; an answer has one structure")
        if schema is not None:
            structure = cls("schema", *_of_schema(schema))
        elif choices:
            check_choices(choices)
            structure = cls("grammar", "start: " + " | ".join(json.dumps(choice) for choice in choices), str)
        elif regex is not None:
            structure = cls("regex", _text("regex", regex), str)
        elif grammar is not None:
            structure = cls("grammar", _text("grammar", grammar), str)
        else:
            return None
        size = len(structure.source.encode("utf-8", "backslashreplace"))
        if size > MOST_BYTES:
            raise GarPromptError(f"the {given[0]} takes {size} bytes; at most {MOST_BYTES} are taken")
        return structure


def check_choices(choices: Sequence[str]) -> None:
    """Raise `GarPromptError` unless these are two or more different texts."""
    listed = isinstance(choices, Sequence) and not isinstance(choices, str)
    if not listed or not all(isinstance(choice, str) for choice in choices):
        raise GarPromptError("choices must be a list of texts")
    if len(choices) < 2:
        raise GarPromptError("there is nothing to choose from: give two choices or more")
    if not all(choice.strip() for choice in choices):
        raise GarPromptError("a choice must not be empty")
    choice, count = Counter(choices).most_common(1)[0]
    if count > 1:
        raise GarPromptError(f"the choice {choice!r} was given twice")


def _of_schema(schema: Schema) -> tuple[str, Callable[[str], Any]]:
    if isinstance(schema, type):
        if not (hasattr(schema, "model_json_schema") and hasattr(schema, "model_validate_json")):
            raise GarPromptError(f"schema must be a JSON Schema or a pydantic model, not the class {schema.__name__}")
        try:
            return json.dumps(closed(schema.model_json_schema())), schema.model_validate_json
        except Exception as error:  # pydantic's, and those of the model's own code
            reason = " ".join(str(error).split())
            raise GarPromptError(f"the model {schema.__name__} has no JSON Schema ({reason})") from None
    if not isinstance(schema, Mapping):
        raise GarPromptError(f"schema must be a JSON Schema (a dict) or a pydantic model, not {type(schema).__name__}")
    try:
        return json.dumps(closed(schema), allow_nan=False), read_json
    except (TypeError, ValueError, RecursionError) as error:
        raise GarPromptError(f"schema is not JSON ({' '.join(str(error).split())})") from None


def read_json(text: str) -> Any:
    """The value of JSON; `ValueError` for a number that a float cannot hold."""
    return json.loads(text, parse_float=_finite)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is no finite number")
    return number


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise GarPromptError(f"{name} must be a text that is not empty")
    return value
