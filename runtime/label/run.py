"""A run: the parts that are left go through the workers, until all are finished or nothing can be."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from gar_edge.runtime.errors import GarBackendError
from gar_edge.runtime.label.cluster import Share, room
from gar_edge.runtime.label.output import Output
from gar_edge.runtime.label.plan import Plan
from gar_edge.runtime.label.task import Task
from gar_edge.runtime.label.worker import Counter, Worker

_LOOK = 0.5  # seconds between two looks at how far it is
_PATIENCE = 5.0  # seconds for the counter to answer
_AT_ONCE = 2  # parts that a worker has under way: the last answers of one share runs with the first of the next
_SHOWN = 300  # characters of an error that is not ours
_ROUNDS = 3  # without a finished part, until the cluster is given up


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

    Machines that die or come are told apart by what they finish: what is left goes to those that are there.
    `GarBackendError` with what a worker says of bundle, engine or disk, or where no worker can be had.
    """
    output = Output(task.output)
    left = [name for name in plan.parts if not output.part(name).exists()]
    state = _State(plan, plan.rows - sum(plan.parts[name] for name in left))
    fruitless = 0
    with _Teller(state, report) as teller:
        while left and fruitless < _ROUNDS:
            finished = 0
            for one in _answers(task, left, share, _workers(share, workers, len(left)), teller.counter):
                if one["fault"]:
                    raise GarBackendError(one["fault"])
                state.add(one)
                finished += 1
            left = [name for name in left if not output.part(name).exists()]
            fruitless = 0 if finished else fruitless + 1
    if left:
        raise GarBackendError(f"{len(left)} parts are not finished: the workers die; see Ray's logs, and run again")
    return replace(state.now(), done=plan.rows)


class _State:
    """What has come of the parts so far; one thread adds, another looks."""

    def __init__(self, plan: Plan, earlier: int) -> None:
        self._plan = plan
        self._begin = time.monotonic()
        self._progress = Progress(plan.rows, earlier, earlier, 0, 0, 0.0)
        self._finished: list[str] = []

    def add(self, part: dict[str, Any]) -> None:
        """A part is finished."""
        before = self._progress
        self._progress = replace(
            before,
            done=before.done + self._plan.parts[part["name"]],
            failed=before.failed + part["failed"],
            tokens=before.tokens + part["tokens"],
        )
        self._finished.append(part["name"])

    def now(self, rows: int = 0, failed: int = 0) -> Progress:
        """With so many rows of parts that are not finished."""
        known = self._progress
        return replace(
            known, done=known.done + rows, failed=known.failed + failed, seconds=time.monotonic() - self._begin
        )

    def take_finished(self) -> list[str]:
        """The names of parts that were finished since this was asked."""
        names, self._finished = self._finished, []
        return names


class _Teller:
    """A thread that asks the counter every so often and reports how far all is."""

    def __init__(self, state: _State, report: Callable[[Progress], None]) -> None:
        import ray

        self.counter: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Counter).remote()
        self._state, self._report = state, report
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="gar-label", daemon=True)

    def __enter__(self) -> _Teller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _tell(self) -> None:
        import ray

        while not self._ended.wait(_LOOK):
            try:
                rows, failed = ray.get(self.counter.forget.remote(self._state.take_finished()), timeout=_PATIENCE)
            except ray.exceptions.RayError:  # it is being started elsewhere
                continue
            self._report(self._state.now(rows, failed))


def _workers(share: Share, wanted: int | None, parts: int) -> int:
    """How many can be had now."""
    fitting = room(share)
    if fitting < 1:
        needs = f"{share.cpus} processors, {share.gpus} GPUs and {share.memory >> 20} MiB"
        raise GarBackendError(f"no machine of the cluster has room for a worker, which takes {needs}")
    return min(fitting, parts) if wanted is None else min(wanted, fitting, parts)


def _answers(task: Task, names: list[str], share: Share, workers: int, counter: Any) -> Iterator[dict[str, Any]]:
    """What parts came to, as they end. Ends early where machines or workers are gone: what is left goes to others.

    `GarBackendError` where a worker fails by anything else than its machine's end.
    """
    import ray

    rows = _dataset(task, names, share, workers, counter).iter_rows()
    try:
        yield from rows
    except ray.exceptions.RayTaskError as error:
        if not isinstance(error.cause, ray.exceptions.RayError):
            raise GarBackendError(f"a worker cannot do its work: {_told(error.cause)}") from None
    except ray.exceptions.RayError:
        return


def _dataset(task: Task, names: list[str], share: Share, workers: int, counter: Any) -> Any:
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    parts = ray.data.from_items([{"part": name} for name in names], override_num_blocks=len(names))
    pool = ActorPoolStrategy(
        size=workers,
        max_tasks_in_flight_per_actor=_AT_ONCE,
        max_concurrent_calls_per_actor=_AT_ONCE,
        enable_true_multi_threading=True,
    )
    return parts.map_batches(
        Worker,
        batch_size=1,
        compute=pool,
        fn_constructor_args=(task, counter),
        num_cpus=share.cpus,
        num_gpus=share.gpus or None,
        memory=share.memory,
    )


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_SHOWN]
