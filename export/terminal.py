"""Progress bar and validation report in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, TextIO

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

from gar_edge.calibration.report import tables
from gar_edge.export.progress import BYTES
from gar_edge.export.validate import Report

_MARKS = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[yellow]–[/]"}


class _Done(DownloadColumn):
    """How much is done, in bytes or in steps."""

    def render(self, task: Task) -> Text:
        if task.fields["unit"] == BYTES:
            return super().render(task)
        return Text(f"{task.completed:.0f}/{task.total:.0f}" if task.fields["unit"] else "")


class TerminalProgress:
    """A line per piece of work; where its size is known, a bar. Nothing is written before the first begins."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream)
        self._bars = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            _Done(),
            TimeElapsedColumn(),
            console=self._console,
            transient=False,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> TerminalProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is None:
            return  # stopping would end a line that nobody began
        if error is None:
            self._finish()
        self._bars.stop()

    def begin(self, what: str, total: int | None = None, unit: str = BYTES) -> None:
        self._finish()
        self._bars.start()
        self._task = self._bars.add_task(what, total=total, unit=unit if total is not None else None)

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


def print_account(account: Mapping[str, Any]) -> None:
    """What quantisation cost, in tables on stdout, and how to calibrate better."""
    console = Console(highlight=False)
    for table in tables(account):
        console.print(table)
    data = account["data"]
    if data["asked"] > data["used"]:
        console.print(f"Only {data['used']} of the {data['asked']} samples asked for were to be had.", soft_wrap=True)
    if data["builtin"]:
        console.print(
            "Calibrated on a built-in set; pictures like those that the robot sees serve better: --calib-data FOLDER",
            soft_wrap=True,
        )


def print_report(report: Report) -> None:
    """The validation, one ✓ or ✗ a line, on stdout."""
    console = Console(highlight=False)
    for check in report.checks:
        console.print(f"{_MARKS[check.ok]} {check.name}: {check.detail}", soft_wrap=True)
