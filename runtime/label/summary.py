"""What a run came to, and what it would come to."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gar_edge.runtime.jobs.log import JobLog
from gar_edge.runtime.jobs.run import run_jobs
from gar_edge.runtime.label.output import Output
from gar_edge.runtime.label.plan import Gathered
from gar_edge.runtime.label.run import Progress
from gar_edge.runtime.label.task import Task

_KINDS = 1000  # different errors that are counted
_TOLD = 5  # of them are told


@dataclass(frozen=True)
class Estimate:
    """What the work would take, from a sample. rate: rows a second of one worker. load: seconds until it begins."""

    rows: int
    pictures_sampled: int
    rows_sampled: int
    failed: int
    load: float
    rate: float
    tokens: float

    def to_json(self, workers: int, hourly: float | None) -> dict[str, Any]:
        """With so many workers, at so much an hour for each of them."""
        seconds = self.load + self.rows / self.rate / workers
        price = {} if hourly is None else {"price": round(seconds / 3600 * workers * hourly, 4)}
        return {
            "rows": self.rows,
            "sampled": {"pictures": self.pictures_sampled, "rows": self.rows_sampled, "failed": self.failed},
            "rows_per_second_and_worker": round(self.rate, 3),
            "tokens_per_row": round(self.tokens, 1),
            "workers": workers,
            "seconds": round(seconds, 1),
            "worker_hours": round(seconds * workers / 3600, 3),
            **price,
        }


def estimate(task: Task, gathered: Gathered, pictures: int) -> Estimate:
    """Answer a sample of the rows in this process; nothing of it is kept. Errors of bundle and engine are raised."""
    begin = time.perf_counter()
    planned = gathered.sample(pictures)
    with task.load() as gar, tempfile.TemporaryDirectory() as folder:
        loaded = time.perf_counter()
        with JobLog(Path(folder) / "sample.jsonl") as log:
            jobs = [row.job() for row in planned]
            tally = run_jobs(jobs, log, gar, task.job_settings(), prepare=task.preparation(gar))
        seconds = time.perf_counter() - loaded
        with (Path(folder) / "sample.jsonl").open("rb") as lines:
            tokens = sum(len(json.loads(line).get("tokens", ())) for line in lines)
    return Estimate(
        rows=gathered.count,
        pictures_sampled=len({job.what.get("image") for job in jobs}),
        rows_sampled=len(planned),
        failed=tally.failed,
        load=loaded - begin,
        rate=len(planned) / seconds,
        tokens=tokens / max(1, len(planned)),
    )


def summary_of(output: Output, progress: Progress, *, model: str, workers: int) -> dict[str, Any]:
    """Of a finished run. failed and errors are those of the whole output, the commonest first."""
    import pyarrow.parquet as pq

    rows = failed = 0
    errors: Counter[str] = Counter()
    for path in output.finished():
        column = pq.read_table(path, columns=["error"]).column(0)
        rows += len(column)
        failed += len(column) - column.null_count
        for text in column.drop_null().to_pylist():
            if text in errors or len(errors) < _KINDS:
                errors[text] += 1
    return {
        "rows": rows,
        "answered": rows - failed,
        "failed": failed,
        "earlier": progress.earlier,
        "seconds": round(progress.seconds, 3),
        "rows_per_second": round(progress.rate, 3),
        "tokens": progress.tokens,
        "workers": workers,
        "model": model,
        "errors": dict(errors.most_common(_TOLD)),
    }
