"""Many questions in one run: `gar-run --jobs FILE --jsonl FILE`.

A job is `{"image": …, "question": …, "regions": …}`: the picture named relative to the jobs' file, the question left
out to have the region described, with `choices` if it has any (see `jobs.question`), the regions in the form of
`regions.files` (or run lengths under `mask_rles`). `id` names it, if given. Its key is its id, or its place in the
file, with a digest of what it asks: altered, it is another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.files.addresses import shown
from gar_edge.runtime.files.fields import Field, read_json
from gar_edge.runtime.generate.options import Options
from gar_edge.runtime.regions.find import Segmenter

_DIGEST = 12  # hexadecimal digits


@dataclass(frozen=True)
class Job:
    """One entry of a jobs' file. `what`: for messages. `field`: its JSON, or what is wrong with it."""

    key: str
    what: dict[str, Any]
    field: Field | GarPromptError


@dataclass(frozen=True)
class JobSettings:
    """What holds for all jobs. folder: where their pictures are named from. max_tiles: None for the bundle's limit."""

    folder: Path
    options: Options
    segment: Segmenter
    max_tiles: int | None


def read_jobs(path: Path) -> list[Job]:
    """The jobs of a JSON list, or of a file of JSON lines; `GarPromptError` for a file that is neither.

    A line that is no JSON is a job that fails. Two jobs of one key are an error.
    """
    jobs = list(_jobs(path))
    if not jobs:
        raise GarPromptError(f"{path}: holds no job")
    places: dict[str, int] = {}
    for place, job in enumerate(jobs):
        if job.key in places:
            raise GarPromptError(f"{path}: jobs {places[job.key]} and {place} are the same; give them other ids")
        places[job.key] = place
    return jobs


def _jobs(path: Path) -> Iterator[Job]:
    if path.suffix.lower() != ".jsonl":
        fields = read_json(path, GarPromptError).items()
        yield from (make_job(place, field) for place, field in enumerate(fields))
        return
    try:
        lines = [line for line in path.read_text("utf-8-sig").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise GarPromptError(f"{path}: cannot be read ({error})") from None
    for place, line in enumerate(lines):
        where = f"[{place}]"
        try:
            yield make_job(place, Field(str(path), json.loads(line), where, GarPromptError))
        except (ValueError, RecursionError) as error:
            reason = GarPromptError(f"{path}: {where} is not JSON ({' '.join(str(error).split())})")
            yield Job(_key(place, line), {"index": place}, reason)


def make_job(place: int, field: Field) -> Job:
    """A job of the entry at this place of a list."""
    what: dict[str, Any] = {"index": place}
    if isinstance(field.value, dict):
        what |= {name: field.value[name] for name in ("id", "image", "question") if field.value.get(name) is not None}
        if isinstance(what.get("image"), str):
            what["image"] = shown(what["image"])
    return Job(_key(what.get("id", place), field.value), what, field)


def _key(name: object, content: object) -> str:
    text = json.dumps(content, sort_keys=True)
    return f"{name}:{hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]}"
