"""Building engines, and their list, in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from gar_edge.runtime.engines.build_progress import BuildStep
from gar_edge.runtime.engines.tensorrt.store import EngineRecord


class TerminalWatch:
    """A line per engine: its phase, a bar for the phase's steps, and the time since its build began."""

    def __init__(self, stream: TextIO) -> None:
        self._bars = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("Building {task.fields[graph]}: {task.description}"),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            console=Console(file=stream),
        )
        self._graph: str | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> TerminalWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is None:
            return  # nothing was built, nothing is shown
        if error is None:
            self._finish()
        self._bars.stop()

    def __call__(self, step: BuildStep) -> None:
        if step.graph != self._graph:
            self._bars.start()
            self._finish()
            self._graph = step.graph
            self._task = self._bars.add_task(step.phase, graph=step.graph, total=None)
        assert self._task is not None
        self._bars.update(self._task, description=step.phase, completed=step.done, total=step.total or None)

    def _finish(self) -> None:
        if self._task is not None:
            self._bars.update(self._task, description="done", completed=1, total=1)
            self._bars.stop_task(self._task)


def print_records(records: Sequence[EngineRecord], misfits: Mapping[str, str | None]) -> None:
    """Engines, a line each, on stdout; `misfits` says by key why one cannot be used here."""
    console = Console(highlight=False)
    if not records:
        console.print("No engines. gar-engine build makes them; so does gar-run --backend tensorrt.", soft_wrap=True)
        return
    for record in records:
        recipe, reason = record.recipe, misfits[record.recipe.key()]
        console.print(
            f"{_what(record)}: {record.bytes / 1e6:.1f} MB, {recipe.engine} {recipe.version}, {recipe.device}; "
            f"{_sizes(record)}; {_built(record)}; "
            f"{'fits this machine' if reason is None else f'cannot run here: {reason}'}",
            soft_wrap=True,
        )


def _built(record: EngineRecord) -> str:
    """How long it took, and on which Jetson's system."""
    return f"built in {record.build_seconds:.0f} s" + (f" on {record.system}" if record.system else "")


def _what(record: EngineRecord) -> str:
    """The graph and, where there are several, its form."""
    form = record.recipe.replay
    return record.recipe.graph if form is None else f"{record.recipe.graph} ({form})"


def _sizes(record: EngineRecord) -> str:
    """The fixed sizes and the largest of those that vary."""
    plan = record.recipe.plan
    most: dict[str, int] = dict(plan.fixed)
    for profile in plan.profiles:
        for name, range in profile.dims.items():
            most[name] = max(most.get(name, 0), range[-1])
    return ", ".join(f"{name} {size}" for name, size in most.items() if name != "batch" or size > 1)
