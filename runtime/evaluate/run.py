"""Asks a task's questions of a bundle, each exactly once, whatever moment a run is killed at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gar_edge.runtime.bundle.manifest import FILE as MANIFEST
from gar_edge.runtime.errors import GarError, GarPromptError
from gar_edge.runtime.evaluate.as_released import prepare_as_released
from gar_edge.runtime.evaluate.task import Item, Task
from gar_edge.runtime.files.addresses import beside
from gar_edge.runtime.files.atomic import write_whole
from gar_edge.runtime.gar import Gar
from gar_edge.runtime.generate.options import Options
from gar_edge.runtime.jobs.job import JobSettings
from gar_edge.runtime.jobs.log import KEY, JobLog
from gar_edge.runtime.jobs.run import Tally, run_jobs
from gar_edge.runtime.regions import box_mask

MOST_TOKENS = 1024  # of the released evaluation, which is greedy
AS_RELEASED = "-as-released"


@dataclass(frozen=True)
class Run:
    """What became of a task's questions. answers: where they are; missing: pictures that the data lack; failed: why,
    by question; too_many: questions about more regions than a prompt takes, which are not asked.
    """

    task: str
    questions: int
    answered: int
    answers: Path
    missing: tuple[str, ...]
    failed: dict[str, str]
    too_many: int

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return {**vars(self), "answers": str(self.answers), "missing": list(self.missing)}


def run_task(
    task: Task,
    gar: Gar,
    data: Path,
    out: Path,
    *,
    as_released: bool = False,
    max_new_tokens: int = MOST_TOKENS,
    report: Callable[[Tally], None] = lambda tally: None,
) -> Run:
    """Ask what `out` lacks, and write the answers in the released form there.

    as_released: as the released evaluation asks, into files of their own. A question whose picture is missing, or which
    cannot be asked, is counted and left out; the rest goes on. `GarPromptError` for data that are not the task's, and
    where another model's answers are there.
    """
    if as_released and not task.several:
        raise GarPromptError(f"{task.name} asks about one region at a time; as released is no other way to ask it")
    name = task.name + (AS_RELEASED if as_released else "")
    items = task.read(data)
    here = [item for item in items if _there(data, item.image)]
    limit = len(gar.manifest.prompt.regions)
    fitting = here if as_released else [item for item in here if item.regions <= limit]
    options = Options(max_new_tokens=max_new_tokens)
    settings = JobSettings(folder=data, options=options, segment=box_mask, max_tiles=None)
    prepare = partial(prepare_as_released, gar, data, options) if as_released else None
    out.mkdir(parents=True, exist_ok=True)
    lines = out / f"{name}.jsonl"
    with JobLog(lines) as log:
        _check_settings(out / f"{name}.settings.json", gar, max_new_tokens, begun=bool(log.done))
        for key in [key for key, answered in log.done.items() if not answered]:
            del log.done[key]  # what failed is asked again: the picture may be whole by now
        run_jobs([item.job for item in fitting], log, gar, settings, report, prepare=prepare)
        said = read_lines(lines)
    answers = [said.get(item.job.key, {}).get("text") for item in items]
    packed = out / f"{name}.json"
    text = json.dumps(task.pack(items, answers), ensure_ascii=False, indent=1)
    write_whole(packed, text.encode("utf-8", "backslashreplace"))  # half a surrogate pair stays JSON's escape
    return Run(
        task=name,
        questions=len(items),
        answered=sum(answer is not None for answer in answers),
        answers=packed,
        missing=tuple(dict.fromkeys(item.image for item in items if not _there(data, item.image))),
        failed={key: line["error"] for item in items if "error" in (line := said.get(key := item.job.key, {}))},
        too_many=len(here) - len(fitting),
    )


def read_lines(path: Path) -> dict[str, dict[str, Any]]:
    """The lines of a run, by their jobs' keys."""
    lines = (json.loads(line) for line in path.read_text("utf-8").split("\n") if line)
    return {line[KEY]: line for line in lines}


def identity(gar: Gar) -> str:
    """A digest of the bundle's manifest, which has those of all its files: two exports of one name differ in it."""
    return hashlib.sha256((gar.pipeline.bundle.folder / MANIFEST).read_bytes()).hexdigest()[:12]


def _check_settings(path: Path, gar: Gar, max_new_tokens: int, *, begun: bool) -> None:
    """`GarPromptError` where answers that are there were made by another bundle, or otherwise."""
    settings = {"bundle": identity(gar), "model": gar.manifest.name, "max_new_tokens": max_new_tokens}
    if begun and path.is_file():
        before = json.loads(path.read_text("utf-8"))
        for name, value in settings.items():
            if before.get(name) != value:
                raise GarPromptError(
                    f"{path.parent}: its answers were made with {name} {before.get(name)}, not {value}; "
                    "give another --out"
                )
    write_whole(path, json.dumps(settings).encode())


def _there(data: Path, name: str) -> bool:
    """Whether a picture's file is there; a name that no file can have is none."""
    try:
        return Path(beside(data, name)).is_file()
    except (OSError, ValueError, GarError):
        return False


def read_answers(task: Task, items: Sequence[Item], path: Path) -> list[str | None]:
    """Answers of a file in the released form, by item; `GarPromptError` for one of another task or model's data."""
    try:
        packed = json.loads(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise GarPromptError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    try:
        return task.unpack(items, packed)
    except GarPromptError as error:
        raise GarPromptError(f"{path}: {error}") from None


def trimmed(text: str) -> str:
    """An answer as the released evaluation compares it: without the end token, without case."""
    return text.strip().removesuffix("<|eot_id|>").strip().casefold()
