"""Questions of your own: jobs with right answers."""

from __future__ import annotations

from pathlib import Path

from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.evaluate.gar_bench import pack, unpack
from gar_edge.runtime.evaluate.task import Item, Task
from gar_edge.runtime.files.fields import Text
from gar_edge.runtime.jobs.job import read_jobs

FILES = ("questions.jsonl", "questions.json")


def _read(folder: Path) -> list[Item]:
    """`questions.jsonl` or `.json`: jobs, each with `answer`, and `type` where they are of several kinds."""
    file = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if file is None:
        raise GarPromptError(f"{folder}: has neither {' nor '.join(FILES)}")
    items = []
    for job in read_jobs(file):
        if isinstance(job.field, GarPromptError):
            raise job.field
        field = job.field
        truth, kind = field["answer"].to(Text), field["type"].to(Text | None) or "untyped"
        marked = field["mask_rles"].value or field["regions"].value
        count = len(marked) if isinstance(marked, list) else 1
        items.append(Item(job, field["image"].to(Text), kind, truth, field.value, count))
    return items


OWN = Task("regions", "questions of your own, in the form of jobs with `answer` and `type`", _read, pack, unpack)
