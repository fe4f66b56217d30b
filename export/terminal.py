"""Progress bar and validation report in a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from gar_edge.export.validate import Report

_MARKS = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[yellow]–[/]"}


class _Bytes(DownloadColumn):
    """Bytes done, where the work is counted in bytes."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.fields["counted"] else Text()


class TerminalProgress:
    """A line per piece of work; where its size is known, a bar in bytes."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream)
        self._bars = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            _Bytes(),
            TimeElapsedColumn(),
            console=self._console,
            transient=False,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> TerminalProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._finish()
        self._bars.stop()

    def begin(self, what: str, total: int | None = None) -> None:
        self._finish()
        self._task = self._bars.add_task(what, total=total, counted=total is not None)

    def advance(self, amount: int) -> None:
        if self._task is not None:
            self._bars.advance(self._task, amount)

    def _finish(self) -> None:
        if self._task is None:
            return
        task = self._bars.tasks[self._task]
        total = task.total or 1
        self._bars.update(self._task, total=total, completed=total)
        self._bars.stop_task(self._task)


def print_report(report: Report) -> None:
    """The validation, one ✓ or ✗ a line, on stdout."""
    console = Console(highlight=False)
    for check in report.checks:
        console.print(f"{_MARKS[check.ok]} {check.name}: {check.detail}", soft_wrap=True)
