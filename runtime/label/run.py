"""A run: the parts that are left go through the workers, until all are finished or nothing can be."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from gar_edge.runtime.errors import GarBackendError
from gar_edge.runtime.label.cluster import Share, room
from gar_edge.runtime.label.crew import Crew
from gar_edge.runtime.label.output import Output
from gar_edge.runtime.label.plan import Plan
from gar_edge.runtime.label.task import Task


@dataclass(frozen=True)
class Progress:
    """Of a run. rows: of the plan. earlier: rows that were finished before it began. tokens: said by finished parts."""

    rows: int
    earlier: int
    done: int
    failed: int
    tokens: int
    seconds: float

    @property
    def rate(self) -> float:
        """Rows a second of this run."""
        return (self.done - self.earlier) / self.seconds if self.seconds > 0 else 0.0

    @property
    def left(self) -> float | None:
        """Seconds until the end at this rate; None where that is unknown."""
        return (self.rows - self.done) / self.rate if self.rate > 0 else None


def run_parts(
    task: Task, plan: Plan, share: Share, workers: int | None, report: Callable[[Progress], None]
) -> Progress:
    """Do what is left of a plan by so many workers, None for as many as there is room for. Ray must be there.

    `report` hears how far it is, every half second. `GarBackendError` with what a worker says of bundle, engine or
    disk, or where no worker can be had.
    """
    output = Output(task.output)
    left = [name for name in plan.parts if not output.part(name).exists()]
    earlier = plan.rows - sum(plan.parts[name] for name in left)
    begin = time.monotonic()
    finished = Progress(plan.rows, earlier, earlier, 0, 0, 0.0)
    with Crew(task, share, _workers(share, workers, len(left))) as crew:
        for part in crew.work(left):
            if part is None:
                rows, failed = crew.under_way
                now = replace(finished, done=finished.done + rows, failed=finished.failed + failed)
                report(replace(now, seconds=time.monotonic() - begin))
            elif part.fault:
                raise GarBackendError(part.fault)
            else:
                finished = replace(
                    finished,
                    done=finished.done + plan.parts[part.name],
                    failed=finished.failed + part.failed,
                    tokens=finished.tokens + part.tokens,
                )
    return replace(finished, seconds=time.monotonic() - begin)


def _workers(share: Share, wanted: int | None, parts: int) -> int:
    """How many can be had now."""
    fitting = room(share)
    if fitting < 1:
        needs = f"{share.cpus} processors, {share.gpus} GPUs and {share.memory >> 20} MiB"
        raise GarBackendError(f"no machine of the cluster has room for a worker, which takes {needs}")
    return min(fitting, parts) if wanted is None else min(wanted, fitting, parts)
