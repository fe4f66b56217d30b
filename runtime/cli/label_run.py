"""What `gar-label` does, and how it says how far it is."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from gar_edge.runtime.bundle.bundle import read_manifest
from gar_edge.runtime.errors import GarError
from gar_edge.runtime.files.atomic import write_whole
from gar_edge.runtime.label.cluster import Share, connected, has_gpus, room
from gar_edge.runtime.label.exports import write_coco, write_jsonl
from gar_edge.runtime.label.inputs import Input
from gar_edge.runtime.label.output import Output
from gar_edge.runtime.label.plan import Gathered, Plan
from gar_edge.runtime.label.run import Progress, run_parts
from gar_edge.runtime.label.settings import Settings
from gar_edge.runtime.label.summary import estimate, summary_of
from gar_edge.runtime.label.task import Loader, Task

_QUIET = 30.0  # seconds between two lines where there is no terminal


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """What the command was given. workers: None for as many as fit. jsonl, coco: where else rows go."""

    source: Input
    output: Output
    load: Loader
    question: str | None
    choose: tuple[str, ...]
    schema: dict[str, Any] | None
    regex: str | None
    max_new_tokens: int
    max_tiles: int | None
    box_as_mask: bool
    workers: int | None
    address: str | None
    jsonl: Path | None
    coco: Path | None

    def task(self) -> Task:
        """`GarError` for a bundle that is none, and for options that cannot be."""
        settings = Settings(
            model=read_manifest(self.load.folder).name,
            bundle=self.load.digest,
            question=self.question,
            choose=self.choose,
            schema=self.schema,
            regex=self.regex,
            max_new_tokens=self.max_new_tokens,
            max_tiles=self.max_tiles,
            box_as_mask=self.box_as_mask,
        )
        settings.options()
        return Task(load=self.load, settings=settings, folder=self.source.folder, output=self.output.folder.resolve())

    def price(self, pictures: int, hourly: float | None) -> dict[str, Any]:
        """What it would take, as JSON; nothing is written."""
        task = self.task()
        with Gathered(self.source.entries(self.question)) as gathered:
            if not gathered.count:
                raise GarError(f"{self.source.path}: holds no region")
            return estimate(task, gathered, pictures).to_json(self.workers or 1, hourly)

    def run(self) -> dict[str, Any]:
        """Label what is left; the summary, which is written too."""
        task = self.task()
        with self.output.held():
            task.settings.check(self.output.folder)
            plan = self._plan()
            task.settings.note(self.output.folder)  # now that there is something to be done by them
            done = all(self.output.part(name).exists() for name in plan.parts)
            progress, workers = Progress(plan.rows, plan.rows, plan.rows, 0, 0, 0.0), 0
            if not done:
                progress, workers = self._parts(task, plan)
            summary = summary_of(self.output, progress, model=task.settings.model, workers=workers)
            write_whole(self.output.folder / "summary.json", json.dumps(summary, indent=1).encode())
            if self.jsonl is not None:
                write_jsonl(self.output, self.jsonl)
            if self.coco is not None:
                write_coco(self.output, self.coco)
        return summary

    def _plan(self) -> Plan:
        """That of an earlier run, if the input is the same; else one of the rows that are not finished."""
        with Gathered(self.source.entries(self.question)) as gathered:
            if not gathered.count:
                raise GarError(f"{self.source.path}: holds no region")
            plan = Plan.read(self.output.plan)
            if plan is not None and plan.fingerprint == gathered.fingerprint:
                return plan
            if plan is not None:
                self.output.retire(plan)
            gathered.leave_out(self.output.keys())
            return gathered.write(self.output.plan)

    def _parts(self, task: Task, plan: Plan) -> tuple[Progress, int]:
        threads = self.load.threads
        cpus = max(1, (self.workers or 0) * threads or Share.of(self.load.folder, threads=0, gpu=False).cpus)
        with _apart(self.output.folder / "ray.log") as stderr, connected(self.address, cpus=cpus):
            gpu = self.load.backend not in ("auto", "onnxruntime") or (self.load.backend == "auto" and has_gpus())
            share = Share.of(self.load.folder, threads=threads, gpu=gpu)
            workers = min(self.workers or room(share), room(share))
            with _Bar(plan.rows, workers, stderr) as bar:
                return run_parts(task, plan, share, self.workers, bar), workers


@contextmanager
def _apart(log: Path) -> Iterator[TextIO]:
    """Whatever Ray writes to standard output and error, its C++ included, goes to a file; yields standard error."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    try:
        with log.open("ab") as file, os.fdopen(os.dup(kept[2]), "w", encoding="utf-8", errors="replace") as stderr:
            for number in kept:
                os.dup2(file.fileno(), number)
            yield stderr
    finally:
        for number, own in kept.items():
            (sys.stdout if number == 1 else sys.stderr).flush()
            os.dup2(own, number)
            os.close(own)


class _Bar:
    """Rows, rows a second, errors and the time that is left: a bar, or a line now and then where no terminal is."""

    def __init__(self, rows: int, workers: int, stream: TextIO) -> None:
        console = Console(file=stream)
        self._stream = stream
        self._terminal = console.is_terminal
        self._rows, self._workers, self._told = rows, workers, time.monotonic()
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[about]}"), TimeRemainingColumn())
        self._bars = Bars(TextColumn("Rows"), *columns, console=console, disable=not self._terminal)
        self._task = self._bars.add_task("rows", total=rows, about="")

    def __enter__(self) -> _Bar:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, progress: Progress) -> None:
        about = f"{progress.rate:.1f} rows/s, {progress.failed} errors"
        if self._terminal:
            self._bars.update(self._task, completed=progress.done, about=about)
        elif time.monotonic() - self._told > _QUIET:
            self._told = time.monotonic()
            left = "" if progress.left is None else f", {progress.left:.0f} s left"
            print(
                f"{progress.done} of {self._rows} rows, {about}, {self._workers} workers{left}",
                file=self._stream,
                flush=True,
            )
