"""What TensorRT is doing while it builds."""

from __future__ import annotations

import time
from typing import Any

from gar_edge.runtime.engines.build_progress import BuildStep, Watch


class BuildWatch:
    """Follows nested phases for one engine, and stops the build when the watching callback raises.

    TensorRT calls from C++, possibly from several threads, and must never see a Python exception: it is kept in
    `failure`, the build is told to stop, and whoever started it raises it again.
    """

    def __init__(self, graph: str, watch: Watch) -> None:
        self._graph = graph
        self._watch = watch
        self._begin = time.perf_counter()
        self._phases: dict[str, int] = {}  # steps of each open phase, outermost first
        self.failure: BaseException | None = None

    def start(self, phase: str, steps: int) -> None:
        self._phases[phase] = steps
        self._report(phase, 0)

    def step(self, phase: str, done: int) -> bool:
        """Whether to go on."""
        self._report(phase, done)
        return self.failure is None

    def finish(self, phase: str) -> None:
        self._phases.pop(phase, None)

    def _report(self, phase: str, done: int) -> None:
        if self.failure is not None:
            return
        try:
            seconds = time.perf_counter() - self._begin
            self._watch(BuildStep(self._graph, phase, done, self._phases.get(phase, 0), seconds))
        except BaseException as error:  # Ctrl-C as well: it arrives in whatever Python code runs next
            self.failure = error


def monitor(trt: Any, watch: BuildWatch) -> Any:
    """A TensorRT progress monitor that reports to `watch`."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            watch.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return watch.step(phase_name, step + 1)

        def phase_finish(self, phase_name: str) -> None:
            watch.finish(phase_name)

    return Monitor()
