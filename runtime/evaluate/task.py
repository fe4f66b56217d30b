"""A task: questions with what is known of their answers, and the form in which the released code keeps answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gar_edge.runtime.jobs.job import Job


@dataclass(frozen=True)
class Item:
    """One question of a task.

    job: what is asked. image: the picture's name in the data's folder. kind: what it counts under. truth: the right
    answer, where one is right word for word. entry: what the data say of it, for the file of answers. regions: how many
    it names, which can be more than a prompt takes.
    """

    job: Job
    image: str
    kind: str
    truth: str | None
    entry: Any
    regions: int = 1


@dataclass(frozen=True)
class Task:
    """A benchmark.

    read: its items from the data's folder. pack: items and their answers, None where there is none, to the object that
    the released evaluation writes. unpack: from that object to each item's answer, which must be of this task's items.
    published: what the model's authors report, for comparison. several: whether
    questions are about several regions, which the released evaluation asks in a way of its own.
    """

    name: str
    about: str
    read: Callable[[Path], list[Item]]
    pack: Callable[[Sequence[Item], Sequence[str | None]], Any]
    unpack: Callable[[Sequence[Item], Any], list[str | None]]
    published: Mapping[str, float] = field(default_factory=dict)
    several: bool = False
