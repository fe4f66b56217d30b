"""What `gar-run --jobs` does: answer what is left of a file of jobs, and say how far it is."""

from __future__ import annotations

import sys
from pathlib import Path

from gar_edge.runtime.cli.job_bar import JobBar
from gar_edge.runtime.cli.loading import EngineSettings
from gar_edge.runtime.errors import GarError
from gar_edge.runtime.jobs.job import JobSettings, read_jobs
from gar_edge.runtime.jobs.log import JobLog
from gar_edge.runtime.jobs.run import run_jobs


def answer_jobs(jobs: Path, jsonl: Path, engine: EngineSettings, settings: JobSettings) -> None:
    """Answer what is left of the jobs; `GarError` in the end where some failed."""
    asked = read_jobs(jobs)
    with JobLog(jsonl) as log:
        if all(job.key in log.done for job in asked):
            failed, earlier = sum(not log.done[job.key] for job in asked), len(asked)
        else:
            with engine.load() as gar, JobBar(len(asked), sys.stderr) as bar:
                tally = run_jobs(asked, log, gar, settings, bar)
            failed, earlier = tally.failed, tally.earlier
    print(f"{len(asked)} jobs, {earlier} of them answered before: {jsonl}", file=sys.stderr)
    if failed:
        raise GarError(f"{failed} of {len(asked)} jobs failed; their lines in {jsonl} say why")
