"""What all rows of an output have in common: written beside them, and compared before others are added."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.files.atomic import write_whole
from gar_edge.runtime.generate.choosing import Choosing
from gar_edge.runtime.generate.options import Options

FILE = "settings.json"
_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is asked, by which model. bundle: the digest of its manifest, which has those of all its files."""

    model: str
    bundle: str
    question: str | None = None
    choose: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None
    regex: str | None = None
    max_new_tokens: int = 1024
    max_tiles: int | None = None
    box_as_mask: bool = False

    def options(self) -> Options:
        """As the scheduler takes them; `GarPromptError` for what cannot be."""
        choosing = Choosing(self.choose) if self.choose else None
        return Options(
            max_new_tokens=self.max_new_tokens, schema=self.schema, regex=self.regex, choosing=choosing
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """The object that is written."""
        return asdict(self) | {"choose": list(self.choose)}

    def note(self, folder: Path) -> None:
        """Write them into an output."""
        value = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
        write_whole(folder / FILE, value.encode("utf-8", "backslashreplace"))

    def check(self, folder: Path) -> None:
        """`GarPromptError` where an output was made by others, saying by which."""
        path = folder / FILE
        mine = self.to_json()
        try:
            found = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise GarPromptError(f"{path}: cannot be read ({error}); give --out a folder of its own") from None
        if not isinstance(found, dict):
            raise GarPromptError(f"{path}: holds no settings; give --out a folder of its own")
        other = [one.name for one in fields(self) if found.get(one.name) != mine[one.name]]
        if other:
            told = "; ".join(f"{name} was {_told(found.get(name))}, now {_told(mine[name])}" for name in other)
            raise GarPromptError(f"{folder}: holds rows made by other settings ({told}); give --out another folder")


def _told(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
