"""Which entry of a file is about a picture: by the names that tools give it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from urllib.parse import parse_qs, unquote, urlsplit

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.images.loading import printable

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://|.*[?&]d=")
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")  # Label Studio puts this before the name of what is uploaded
_SHOWN = 3  # names that an error lists


def entry_about(names: Sequence[Sequence[str]], image: str, source: str) -> int:
    """The place of the entry about the picture of this path, each entry having one or more names.

    Names are paths with either slash, or addresses; Unicode's forms are one. Of several with the file's name, the one
    is taken that shares most folders with the path. An entry without any name is about the picture where it is the
    only one. `GarMaskError` where there is none, or more than one.
    """
    if len(names) == 1 and not names[0]:
        return 0
    asked = name_parts(image)
    shared = [max((_shared(name_parts(name), asked) for name in own), default=0) for own in names]
    if not any(shared):
        folded = [part.casefold() for part in asked]
        shared = [
            max((_shared([part.casefold() for part in name_parts(name)], folded) for name in own), default=0)
            for own in names
        ]
    best = max(shared, default=0)
    found = [place for place, count in enumerate(shared) if count == best] if best else []
    if len(found) == 1:
        return found[0]
    if found:
        raise GarMaskError(f"{source}: has {len(found)} entries about {asked[-1]}; one is needed")
    others = [printable(own[0]) for own in names if own]
    listed = f"; it has {', '.join(others[:_SHOWN])}{', …' * (len(others) > _SHOWN)}" if others else ""
    raise GarMaskError(f"{source}: has 0 entries about {asked[-1]}{listed}; one of this name is needed")


def name_parts(name: str) -> list[str]:
    """A path's parts, at least one; of an address those of its path, or of its query `d=` as Label Studio has it."""
    if _URL.match(name):
        try:
            address = urlsplit(name)
            name = unquote(parse_qs(address.query).get("d", [address.path])[0])
        except ValueError:  # no address after all
            pass
    parts = [part for part in unicodedata.normalize("NFC", name).replace("\\", "/").split("/") if part not in ("", ".")]
    return parts or [""]


def _shared(name: list[str], asked: list[str]) -> int:
    """How many parts from the last on are the same."""
    count = 0
    for one, other in zip(reversed(name), reversed(asked), strict=False):
        if one != other and not (count == 0 and (match := _UPLOADED.fullmatch(one)) and match[1] == other):
            break
        count += 1
    return count
