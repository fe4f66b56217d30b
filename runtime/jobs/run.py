"""Many questions in one run: `gar-run --jobs FILE --jsonl FILE`.

A job is `{"image": …, "question": …, "regions": …}`: the picture named relative to the jobs' file, the question left
out to have the region described, the regions in the form of `regions.files` (or run lengths under `mask_rles`). `id`
names it, if given. Its key is its id, or its place in the file, with a digest of what it asks: altered, it is another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gar_edge.runtime.errors import GarError, GarImageError, GarMaskError, GarPromptError
from gar_edge.runtime.files.fields import Field, Text, read_json
from gar_edge.runtime.gar import Gar, Scene
from gar_edge.runtime.generate.answer import Answer
from gar_edge.runtime.generate.sampling import Options
from gar_edge.runtime.jobs.log import JobLog
from gar_edge.runtime.regions.files import entry_regions
from gar_edge.runtime.regions.find import Segmenter, find_mask

_DIGEST = 12  # hexadecimal digits
_OWN_FAULT = (GarImageError, GarMaskError, GarPromptError)  # of a job; other errors would meet every job after it


@dataclass(frozen=True)
class Job:
    """One entry of a jobs' file. `what`: for messages. `field`: its JSON, or what is wrong with it."""

    key: str
    what: dict[str, Any]
    field: Field | GarPromptError


@dataclass(frozen=True)
class Tally:
    """How many jobs are done, how many of these failed, and how many an earlier run did."""

    done: int
    failed: int
    earlier: int


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


def run_jobs(
    jobs: Sequence[Job],
    log: JobLog,
    gar: Gar,
    folder: Path,
    options: Options,
    segment: Segmenter,
    max_tiles: int | None,
    watch: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Answer the jobs that `log` lacks, in order, each with one line; `folder` is where pictures are named from.

    A job that fails by its own fault gets its error as its line. `watch` hears how far it is, first and after each job.
    `GarPromptError` where another model answered before; errors of bundle and back end end the run.
    """
    if log.model is not None and log.model != gar.manifest.name:
        raise GarPromptError(f"--jsonl holds answers of {log.model}, not {gar.manifest.name}; give a file of its own")
    left = [job for job in jobs if job.key not in log.done]
    earlier = len(jobs) - len(left)
    done, failed = earlier, sum(not log.done.get(job.key, True) for job in jobs)
    pictures = _Pictures(gar, folder, max_tiles)
    watch(Tally(done, failed, earlier))
    for job in left:
        try:
            fields = _answer(job, pictures, options, segment).to_json()
        except _OWN_FAULT as error:
            fields = {"error": str(error)}
        log.write(job.key, {**job.what, **fields})
        done, failed = done + 1, failed + ("error" in fields)
        watch(Tally(done, failed, earlier))
    return Tally(done, failed, earlier)


class _Pictures:
    """Opens pictures; the last stays open, since jobs about one picture tend to follow each other."""

    def __init__(self, gar: Gar, folder: Path, max_tiles: int | None) -> None:
        self.folder = folder
        self.default_region = gar.manifest.prompt.default_region
        self._gar = gar
        self._max_tiles = max_tiles
        self._last: tuple[str, Scene] | None = None

    def open(self, name: str) -> Scene:
        if self._last is None or self._last[0] != name:
            self._last = None  # its memory may be wanted now
            self._last = name, self._gar.open(self.folder / name, self._max_tiles)
        return self._last[1]


def _answer(job: Job, pictures: _Pictures, options: Options, segment: Segmenter) -> Answer:
    if isinstance(job.field, GarError):
        raise job.field
    question = job.field["question"]
    asked = None if question.value in (None, "") else question.to(Text)
    if job.field["choices"].value is not None:
        raise job.field["choices"].wrong("left out; write the choices into the question")
    scene = pictures.open(job.field["image"].to(Text))
    masks = {
        number: find_mask(region, scene.image, segment, f"region {number}", turn=scene.turn)
        for number, region in entry_regions(job.field, pictures.folder).items()
    }
    if asked is None and list(masks) == [0]:
        masks = {pictures.default_region: masks[0]}
    return scene.stream(asked, masks, options).finish()


def _jobs(path: Path) -> Iterator[Job]:
    if path.suffix.lower() != ".jsonl":
        fields = read_json(path, GarPromptError).items()
        yield from (_job(place, field) for place, field in enumerate(fields))
        return
    try:
        lines = [line for line in path.read_text("utf-8-sig").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise GarPromptError(f"{path}: cannot be read ({error})") from None
    for place, line in enumerate(lines):
        where = f"[{place}]"
        try:
            yield _job(place, Field(str(path), json.loads(line), where, GarPromptError))
        except (ValueError, RecursionError) as error:
            reason = GarPromptError(f"{path}: {where} is not JSON ({' '.join(str(error).split())})")
            yield Job(_key(place, line), {"index": place}, reason)


def _job(place: int, field: Field) -> Job:
    what: dict[str, Any] = {"index": place}
    if isinstance(field.value, dict):
        what |= {name: field.value[name] for name in ("id", "image", "question") if field.value.get(name) is not None}
    return Job(_key(what.get("id", place), field.value), what, field)


def _key(name: object, content: object) -> str:
    text = json.dumps(content, sort_keys=True)
    return f"{name}:{hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]}"
