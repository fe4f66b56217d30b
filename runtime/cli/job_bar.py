"""How far a run of jobs is, in a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from gar_edge.runtime.jobs.run import Tally


class JobBar:
    """A bar with the rate and the time that is left; nothing where the stream is no terminal."""

    def __init__(self, jobs: int, stream: TextIO) -> None:
        console = Console(file=stream)
        self._bars = Progress(
            TextColumn("Jobs"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failed]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._jobs = jobs

    def __enter__(self) -> JobBar:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, tally: Tally) -> None:
        failed = f"{tally.failed} failed" if tally.failed else ""
        if not self._bars.tasks:  # what an earlier run did says nothing about this one's rate
            self._bars.add_task("jobs", total=self._jobs, completed=tally.earlier, failed=failed)
        else:
            self._bars.update(self._bars.tasks[0].id, completed=tally.done, failed=failed)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.2f} jobs/s" if speed else "")
