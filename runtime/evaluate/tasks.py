"""All tasks, by name."""

from __future__ import annotations

from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.evaluate.captions import DLC, FERRET
from gar_edge.runtime.evaluate.gar_bench import DETAILED_CAPTIONS, SIMPLE, VQA
from gar_edge.runtime.evaluate.own import OWN
from gar_edge.runtime.evaluate.task import Task

TASKS = {task.name: task for task in (VQA, SIMPLE, DETAILED_CAPTIONS, DLC, FERRET, OWN)}


def task_of(name: str) -> Task:
    """The task of this name; `GarPromptError` lists those that there are."""
    if name not in TASKS:
        raise GarPromptError(f"there is no task {name}; there are {', '.join(TASKS)}")
    return TASKS[name]
