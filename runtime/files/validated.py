"""JSON that this project wrote itself, read back into dataclasses by msgspec; what is wrong is named with its place."""

from __future__ import annotations

import copy
import re
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_STEP = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")
_WORDS = {"object": "an object", "array": "a list"}


def validated(kind: type[T], value: Any, where: str) -> T:
    """A dataclass from parsed JSON; unknown fields are ignored.

    ValueError names the field that is missing or of a wrong type, `where` being the name of the whole.
    """
    message = _refusal(kind, value)
    if message is None:
        return msgspec.convert(value, kind)
    reason, _, path = message.partition(" - at `$")
    place, found = _follow(kind, copy.deepcopy(value), path.rstrip("`"), message)
    if missing := re.search(r"missing required field `(.+)`", reason):
        raise ValueError(f"{where}{place}: no field {missing[1]!r}")
    if expected := re.match(r"Expected `(.+?)(?: \| null)?`", reason):
        words = _WORDS.get(expected[1], expected[1])
        raise ValueError(f"{where}{place}: expected {words}, found {type(found).__name__}")
    raise ValueError(f"{where}{place}: {reason}")


def _follow(kind: type[Any], value: Any, path: str, message: str) -> tuple[str, Any]:
    """A place as msgspec writes it, with the keys that it leaves out, and what stands there; `value` is used up.

    msgspec writes `[...]` for any entry of a mapping. The one that is meant is refused alone, too.
    """
    place, at = "", value
    for name, index in _STEP.findall(path):
        if name:
            place, at = f"{place}.{name}", at[name]
        elif index != "...":
            place, at = f"{place}[{index}]", at[int(index)]
        else:
            for key, entry in list(at.items()):
                at.clear()
                at[key] = entry
                if _refusal(kind, value) == message:
                    break
            place, at = f"{place}.{key}", entry
    return place, at


def _refusal(kind: type[Any], value: Any) -> str | None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        return str(error)
    return None
