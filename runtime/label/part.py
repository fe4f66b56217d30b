"""One part of the work, done by one attempt: the rows that earlier attempts lack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gar_edge.runtime.gar import Gar
from gar_edge.runtime.jobs.job import Job
from gar_edge.runtime.jobs.log import JobLog
from gar_edge.runtime.jobs.run import Tally, run_jobs
from gar_edge.runtime.label.output import Output
from gar_edge.runtime.label.plan import rows_in
from gar_edge.runtime.label.task import Task

_FRUITLESS = 3  # attempts that ended before their first answer: from then on rows are taken one by one


@dataclass(frozen=True)
class PartDone:
    """rows: of the part. failed: of these. tokens: said. here: rows that this attempt answered."""

    name: str
    rows: int
    failed: int
    tokens: int
    here: int


def work_on(name: str, task: Task, gar: Gar, report: Callable[[Tally], None]) -> PartDone | None:
    """Answer what is left of a part and write its file; None where it has one already, or is no longer planned.

    A row at which workers die is found by going one by one, and gets that as its error. Errors of bundle, engine and
    disk are raised.
    """
    output = Output(task.output)
    path = output.plan / f"{name}.jsonl"
    if output.part(name).exists() or not path.exists():
        output.drop_journals(name)
        return None
    planned = rows_in(path)
    answers = output.journaled(name)
    careful = output.fruitless(name) >= _FRUITLESS
    jobs = [row.job() for row in planned if row.key not in answers]
    prepare, settings = task.preparation(gar), task.job_settings()
    with output.open_journal(name) as log:
        if careful:
            for job in jobs:
                _alone(job, name, output, log, lambda one: run_jobs([one], log, gar, settings, prepare=prepare))
                report(Tally(len(log.done), 0, 0))
        else:
            run_jobs(jobs, log, gar, settings, report, prepare=prepare)
    answers = output.journaled(name)
    if output.part(name).exists():  # another attempt was first, and may have removed the journals while they were read
        output.drop_journals(name)
        return None
    if path.exists():  # else another run has planned anew
        output.finish(name, planned, answers)
    failed = sum("error" in answer for answer in answers.values())
    tokens = sum(len(answer.get("tokens", ())) for answer in answers.values())
    return PartDone(name, len(planned), failed, tokens, len(jobs))


def _alone(job: Job, name: str, output: Output, log: JobLog, answer: Callable[[Job], object]) -> None:
    """Answer a job, unless an attempt has begun it alone and died."""
    if job.key in output.begun(name):
        log.write(job.key, {**job.what, "error": "the worker died whenever it came to this row"})
        return
    output.begin(name, job.key)
    answer(job)
