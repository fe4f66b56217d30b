"""gar-label: rows a second of one and two workers beside `gar-run --jobs` in one process, and memory as rows grow.

    python tests/benchmarks/many_workers.py speed --regions 10000 --rounds 2
    python tests/benchmarks/many_workers.py memory --rows 1000 --rows 10000 --rows 100000

speed: gar-nano, one thread a worker, drawn scenes; within a round the sides take turns, and rows a second are those of
the whole command, and for gar-label those of the work without starting Ray too. Two processes of `gar-run --jobs` with
half the jobs each say what two workers could do at most. Processor seconds tell the framework's share on a machine with
other users.

memory: rows that get a line without a picture, a model's run or a wait for the disk, so that what grows would be the
framework's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).parents[1]))

from gar_edge.runtime.bundle.shipped import SHIPPED
from gar_edge.runtime.label.inputs import Input

app = typer.Typer(add_completion=False)


def jobs_of(coco: Path) -> Path:
    """The same regions as jobs."""
    path = coco.with_suffix(".jsonl")
    with path.open("w") as file:
        for entry in Input(coco).entries(None):
            file.write(json.dumps(entry.value) + "\n")
    return path


def halves(jobs: Path) -> list[Path]:
    """The jobs in two files, each with every picture's regions together."""
    lines = jobs.read_text().splitlines(keepends=True)
    middle = len(lines) // 2
    while middle < len(lines) and json.loads(lines[middle])["image"] == json.loads(lines[middle - 1])["image"]:
        middle += 1
    paths = [jobs.with_name(f"half-{number}.jsonl") for number in range(2)]
    for path, half in zip(paths, (lines[:middle], lines[middle:]), strict=True):
        path.write_text("".join(half))
    return paths


def bare(jobs: list[Path], out: Path) -> tuple[float, float]:
    """Seconds until `gar-run --jobs` of one thread has ended for each of these, side by side; processor seconds."""
    run = [sys.executable, "-m", "gar_edge.runtime.cli.run", "--threads", "1", "-m", str(SHIPPED)]
    commands = [[*run, "--jobs", str(one), "--jsonl", str(out.with_suffix(f".{one.name}"))] for one in jobs]
    begin = time.perf_counter()
    with ThreadPoolExecutor(len(jobs)) as pool:
        spent = [cpu["command"] for _, cpu in pool.map(timed, commands)]
    return time.perf_counter() - begin, sum(spent)


def timed(command: list[str]) -> tuple[float, dict[str, float]]:
    """Seconds that a command takes, and processor seconds of it, of its workers and of Ray's own processes."""
    begin, used = time.perf_counter(), dict[int, tuple[str, float]]()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            used |= _used(process.pid)
            time.sleep(0.2)
        seconds = time.perf_counter() - begin
        assert process.returncode == 0, command
    kinds: dict[str, float] = {"command": 0.0, "workers": 0.0, "ray": 0.0}
    for kind, spent in used.values():
        kinds[kind] += spent
    return seconds, kinds


def _used(pid: int) -> dict[int, tuple[str, float]]:
    """Processor seconds of a process and of those below it, by process."""
    import psutil

    found = {}
    try:
        for one in (above := psutil.Process(pid), *above.children(recursive=True)):
            name = " ".join(one.cmdline())
            kind = "command" if one.pid == pid else "workers" if "ray::Worker" in name else "ray"
            spent = one.cpu_times()
            found[one.pid] = kind, spent.user + spent.system
    except psutil.Error:  # one has just ended
        pass
    return found


@app.command()
def speed(
    regions: Annotated[int, typer.Option(min=10)] = 10_000,
    rounds: Annotated[int, typer.Option(min=1)] = 2,
    most: Annotated[int, typer.Option(min=1, max=2, help="Workers; 1 leaves out the side of two.")] = 2,
) -> None:
    """Rows a second of the work and of the whole command, by side, round by round."""
    from helpers.drawn_coco import drawn_coco

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        coco = drawn_coco(folder / "drawn", regions)
        jobs = jobs_of(coco)
        for number in range(rounds):
            line: dict[str, Any] = {"round": number, "regions": regions}
            out = folder / f"jobs-{number}.jsonl"
            seconds, jobs_cpu = bare([jobs], out)
            line |= {"jobs, whole": regions / seconds, "jobs, cpu s": jobs_cpu}
            for workers in range(1, most + 1):
                out = folder / f"label-{number}-{workers}"
                label = [sys.executable, "-m", "gar_edge.runtime.cli.label", str(coco), "--out", str(out)]
                seconds, cpu = timed([*label, "--workers", str(workers), "-m", str(SHIPPED)])
                line[f"{workers} workers, whole"] = regions / seconds
                line |= {f"{workers} workers, cpu s of {kind}": spent for kind, spent in cpu.items()}
                line[f"{workers} workers"] = json.loads((out / "summary.json").read_text())["rows_per_second"]
            if most > 1:
                seconds, _ = bare(halves(jobs), out)
                line["two processes of jobs, whole"] = regions / seconds
                line["two processes over one"] = line["two processes of jobs, whole"] / line["jobs, whole"]
                line["two over one"] = line["2 workers"] / line["1 workers"]
                line["two over one, share of two processes'"] = line["two over one"] / line["two processes over one"]
            line["share of the framework, cpu"] = 1 - jobs_cpu / sum(
                line[f"1 workers, cpu s of {kind}"] for kind in ("command", "workers", "ray")
            )
            line["share of the framework"] = 1 - line["1 workers, whole"] / line["jobs, whole"]
            print(json.dumps({name: round(value, 3) for name, value in line.items()}), flush=True)


@dataclass(frozen=True)
class NoModel:
    """Loads gar-nano, whose scheduler answers nothing: see `_instantly`."""

    def __call__(self) -> Any:
        from gar_edge.runtime import Gar

        return Gar.load(SHIPPED, threads=1)


def _instantly(jobs: Any, log: Any, gar: Any, settings: Any, report: Any = lambda tally: None, **_: Any) -> Any:
    """In the place of `run_jobs`: a line for each job, without an answer's work."""
    from gar_edge.runtime.jobs.run import Tally

    for number, job in enumerate(jobs):
        fields = {"text": "An answer of the usual length, as captions have it.", "tokens": list(range(20))}
        log.write(job.key, {**job.what, **fields, "model": gar.manifest.name})
        report(Tally(number + 1, 0, 0))
    return Tally(len(jobs), 0, 0)


@dataclass(frozen=True)
class Instant:
    """A loader that also puts `_instantly` in the place of the answers, in the worker's process."""

    load: Callable[[], Any]

    def __call__(self) -> Any:
        from gar_edge.runtime.label import part

        part.run_jobs = _instantly  # type: ignore[assignment]
        os.fsync = lambda file: None  # waiting for the disk is what takes the time of the rest
        return self.load()


class Watch:
    """The most memory of this process and of all workers below it, every so often."""

    def __init__(self) -> None:
        self.driver = self.worker = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        import psutil

        me = psutil.Process()
        while not self._ended.wait(0.25):
            self.driver = max(self.driver, _own(me))
            for child in me.children(recursive=True):
                try:
                    if "ray::Worker" in " ".join(child.cmdline()):
                        self.worker = max(self.worker, _own(child))
                except psutil.Error:
                    continue


def _own(process: Any) -> int:
    """Bytes that are not shared with other processes."""
    return int(process.memory_full_info().uss)


@app.command()
def memory(rows: Annotated[list[int], typer.Option(min=1)], workers: int = 2) -> None:
    """The most memory of driver and workers, by number of rows; a process for each number."""
    if len(rows) > 1:
        for count in rows:
            subprocess.run([sys.executable, __file__, "memory", "--rows", str(count)], check=True)
        return
    from gar_edge.runtime.label.cluster import Share, connected
    from gar_edge.runtime.label.output import Output
    from gar_edge.runtime.label.plan import Gathered
    from gar_edge.runtime.label.run import run_parts
    from gar_edge.runtime.label.settings import Settings
    from gar_edge.runtime.label.task import Task

    with tempfile.TemporaryDirectory() as name:
        folder, source = Path(name), Path(name) / "jobs.jsonl"
        with source.open("w") as file:
            for number in range(rows[0]):
                box = {"box": [number % 90, 1, number % 90 + 9, 30]}
                file.write(json.dumps({"image": f"{number // 8:07d}.png", "regions": [box], "id": number}) + "\n")
        output = Output(folder / "out")
        with output.held(), Watch() as planning, Gathered(Input(source).entries(None)) as gathered:
            plan = gathered.write(output.plan)
        settings = Settings(model="none", bundle="0")
        task = Task(load=Instant(NoModel()), settings=settings, folder=folder, output=output.folder)
        share = Share.of(SHIPPED, threads=1, gpu=False)
        with connected(None, cpus=workers), Watch() as watch:
            done = run_parts(task, plan, share, workers, lambda progress: None)
        figures = {"planning": planning.driver, "driver": watch.driver, "worker": watch.worker}
        line = {"rows": rows[0], "parts": len(plan.parts), "rows/s": round(done.rate)}
        print(json.dumps(line | {f"{name}, MB": round(size / 1e6) for name, size in figures.items()}), flush=True)


if __name__ == "__main__":
    app()
