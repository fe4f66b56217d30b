"""Many jobs, answered side by side, each exactly once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from gar_edge.runtime.errors import GarImageError, GarMaskError, GarPromptError
from gar_edge.runtime.files.addresses import shown
from gar_edge.runtime.gar import Gar
from gar_edge.runtime.generate.side_by_side import Asked, answer_side_by_side
from gar_edge.runtime.jobs.job import Job, JobSettings
from gar_edge.runtime.jobs.log import JobLog
from gar_edge.runtime.jobs.prepare import Preparation

READERS = 2  # threads that open pictures; more would take cores from the engine
_OWN_FAULT = (GarImageError, GarMaskError, GarPromptError)  # of a job; other errors would meet every job after it


@dataclass(frozen=True)
class Tally:
    """How many jobs are done, how many of these failed, and how many an earlier run did."""

    done: int
    failed: int
    earlier: int


def run_jobs(
    jobs: Sequence[Job],
    log: JobLog,
    gar: Gar,
    settings: JobSettings,
    report: Callable[[Tally], None] = lambda tally: None,
    *,
    prepare: Callable[[Job], Asked] | None = None,
) -> Tally:
    """Answer the jobs that `log` lacks, many side by side, each with one line as its answer ends.

    Pictures are read and cut ahead, in threads of their own. A job that fails by its own fault gets its error as its
    line. `report` hears how far it is, first and after each job. `prepare` makes requests otherwise than jobs say.
    `GarPromptError` where another model answered before;
    errors of bundle and back end end the run.
    """
    if log.model is not None and log.model != gar.manifest.name:
        raise GarPromptError(f"--jsonl holds answers of {log.model}, not {gar.manifest.name}; give a file of its own")
    left = [job for job in jobs if job.key not in log.done]
    tally = Tally(len(jobs) - len(left), sum(not log.done.get(job.key, True) for job in jobs), len(jobs) - len(left))
    report(tally)

    def finish(job: Job, fields: dict[str, Any]) -> None:
        nonlocal tally
        log.write(job.key, {**job.what, **fields})
        tally = replace(tally, done=tally.done + 1, failed=tally.failed + ("error" in fields))
        report(tally)

    asked: list[Job] = []

    def requests(reading: Iterator[tuple[Job, Future[Asked]]]) -> Iterator[Asked]:
        for job, ready in reading:
            try:
                request = ready.result()
            except _OWN_FAULT as error:
                finish(job, {"error": shown(str(error))})
            else:
                asked.append(job)
                yield request

    def refuse(number: int, error: GarPromptError) -> None:
        finish(asked[number], {"error": shown(str(error))})

    pool = ThreadPoolExecutor(READERS, "gar-read")
    try:
        reading = _ahead(pool, left, prepare or Preparation(gar, settings), 2 * gar.scheduler.places)
        answers = answer_side_by_side(gar.scheduler, requests(reading), refused=refuse)
        for number, answer in answers:
            finish(asked[number], answer.to_json())
    finally:
        pool.shutdown(cancel_futures=True)
    return tally


def _ahead(
    pool: ThreadPoolExecutor, jobs: Sequence[Job], prepare: Callable[[Job], Asked], ahead: int
) -> Iterator[tuple[Job, Future[Asked]]]:
    """Each job with its request, so many of which are being prepared while others are answered."""
    waiting: deque[tuple[Job, Future[Asked]]] = deque()
    for job in jobs:
        waiting.append((job, pool.submit(prepare, job)))
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting
