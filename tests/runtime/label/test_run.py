"""Runs of many workers, by Ray: each row exactly once, and equal to single answers, whatever is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import helpers
import pytest
from helpers.drawn_coco import drawn_coco
from helpers.label_loaders import DiesLoading, DiesOnce, OtherBundleOn
from helpers.needs import RAY
from pycocotools.coco import COCO

from gar_edge.runtime import Gar
from gar_edge.runtime.bundle.shipped import SHIPPED
from gar_edge.runtime.errors import GarBackendError
from gar_edge.runtime.label.cluster import Share, connected
from gar_edge.runtime.label.exports import rows_of_output
from gar_edge.runtime.label.inputs import Input
from gar_edge.runtime.label.output import Output
from gar_edge.runtime.label.plan import Gathered, Plan
from gar_edge.runtime.label.run import Progress, run_parts
from gar_edge.runtime.label.settings import Settings
from gar_edge.runtime.label.task import Loader, Task

ray = pytest.importorskip("ray", reason=RAY)
from ray.cluster_utils import Cluster  # noqa: E402 - only where Ray is

ROWS = 200
MEMORY = 100 << 20  # bytes of a node's object store, the least that Ray takes being 75 MB
HEALTH = {"health_check_period_ms": 500, "health_check_failure_threshold": 4, "health_check_timeout_ms": 2000}
LABEL = [sys.executable, "-m", "gar_edge.runtime.cli.label"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_coco(tmp_path_factory.mktemp("drawn"), ROWS)


@pytest.fixture(scope="module")
def described(drawn: Path) -> dict[str, list[int]]:
    """The tokens of single answers, of masks as pycocotools has them."""
    truth, found = COCO(str(drawn)), {}
    with Gar.load(SHIPPED, threads=1) as gar:
        for annotation in truth.anns.values():
            scene = gar.open(drawn.parent / truth.imgs[annotation["image_id"]]["file_name"])
            found[str(annotation["id"])] = list(scene.describe(truth.annToMask(annotation) > 0).tokens)
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that works too; tests add nodes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(Path(helpers.__path__[0]).parent))  # the workers' too
        head = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False, "_system_config": HEALTH}
        started = Cluster(initialize_head=True, head_node_args=head)
        yield started
        for node in started.list_all_nodes():  # its own shutdown refuses where a driver of this process was connected
            node.kill_all_processes(check_alive=False, allow_graceful=False)


def command(source: Path, out: Path, *more: str) -> list[str]:
    return [*LABEL, str(source), "--out", str(out), "-m", str(SHIPPED), *more]


def run(*arguments: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == code, done.stderr
    return done


@contextmanager
def started(arguments: list[str], stderr: int) -> Iterator[subprocess.Popen[str]]:
    """A run under way, which does not outlive a test that fails: leaving `Popen` alone waits for its end."""
    with subprocess.Popen(arguments, stderr=stderr, text=True) as process:
        try:
            yield process
        finally:
            process.kill()  # nothing, where it has ended


def tokens(out: Path) -> dict[str, list[int]]:
    """Of each row; there must be each once."""
    rows = list(rows_of_output(Output(out)))
    assert len(rows) == len({row["key"] for row in rows}) == len({row["id"] for row in rows})
    assert [row["error"] for row in rows if row["error"] is not None] == []
    return {row["id"]: row["tokens"] for row in rows}


def answered(out: Path) -> int:
    """Rows that are safe by now, in journals or finished parts."""
    output = Output(out)
    plan = Plan.read(output.plan)
    if plan is None:
        return 0
    parts = plan.parts.items()
    return sum(count if output.part(name).exists() else len(output.journaled(name)) for name, count in parts)


def wait_for(process: subprocess.Popen[Any], out: Path, rows: int) -> None:
    end = time.monotonic() + 120
    while answered(out) < rows:
        assert process.poll() is None, "it ended early"
        assert time.monotonic() < end
        time.sleep(0.1)


def prepared(drawn: Path, out: Path) -> tuple[Task, Plan]:
    load = Loader.of(SHIPPED, backend="onnxruntime", decoder="standard", threads=1, batch=8)
    output = Output(out)
    with output.held(), Gathered(Input(drawn).entries(None)) as gathered:
        plan = gathered.write(output.plan)
    settings = Settings(model="gar-nano", bundle=load.digest)
    return Task(load=load, settings=settings, folder=drawn.parent, output=out), plan


SHARE = Share.of(SHIPPED, threads=1, gpu=False)


def test_one_command_on_one_machine(tmp_path: Path, drawn: Path, described: dict[str, list[int]]) -> None:
    out, lines, captions = tmp_path / "out", tmp_path / "rows.jsonl", tmp_path / "captions.json"
    done = run(drawn, out, "--workers", "2", "--json", "--jsonl", str(lines), "--coco", str(captions))
    assert tokens(out) == described
    summary = json.loads(done.stdout)
    assert summary == json.loads((out / "summary.json").read_text())
    wanted = {"rows": ROWS, "answered": ROWS, "failed": 0, "earlier": 0, "workers": 2, "errors": {}}
    assert {name: summary[name] for name in wanted} == wanted
    assert summary["tokens"] == sum(map(len, described.values()))
    assert len(lines.read_text("utf-8").splitlines()) == ROWS
    assert len(COCO(str(captions)).anns) == ROWS
    again = run(drawn, out, "--json")
    assert json.loads(again.stdout)["earlier"] == ROWS
    other = run(drawn, out, "-q", "What is <Prompt0>?", code=1)
    assert 'question was null, now "What is <Prompt0>?"' in other.stderr
    assert len(other.stderr.splitlines()) == 1


def test_a_node_is_killed_and_the_driver_twice(
    tmp_path: Path, drawn: Path, described: dict[str, list[int]], cluster: Cluster
) -> None:
    out = tmp_path / "out"
    node = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    cluster.wait_for_nodes()
    labelling = command(drawn, out, "--address", cluster.address)
    for share in (0.2, 0.4):
        with started(labelling, subprocess.DEVNULL) as process:
            wait_for(process, out, int(share * ROWS))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
    safe = answered(out)
    with started(labelling, subprocess.PIPE) as process:
        wait_for(process, out, max(safe, ROWS // 2) + 10)
        cluster.remove_node(node, allow_graceful=False)
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
    assert tokens(out) == described
    assert list((out / "journal").iterdir()) == []


def test_a_worker_dies_and_another_takes_its_part(
    tmp_path: Path, drawn: Path, described: dict[str, list[int]], cluster: Cluster
) -> None:
    out, armed = tmp_path / "out", tmp_path / "armed"
    armed.touch()
    task, plan = prepared(drawn, out)
    reports: list[Progress] = []
    with connected(cluster.address, cpus=1):
        dying = Task(load=DiesOnce(task.load, armed), settings=task.settings, folder=task.folder, output=out)
        done = run_parts(dying, plan, SHARE, 1, reports.append)
    assert not armed.exists()
    assert tokens(out) == described
    assert (done.rows, done.done, done.failed) == (ROWS, ROWS, 0)
    assert all(0 <= one.done <= ROWS for one in reports)


def test_a_bundle_that_differs_on_a_node_ends_the_run(tmp_path: Path, drawn: Path, cluster: Cluster) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    cluster.wait_for_nodes()
    other = shutil.copytree(SHIPPED, tmp_path / "other")
    manifest = other / "gar.json"
    manifest.write_text(manifest.read_text().replace('"gar-nano-fp32"', '"gar-nano-else"'))
    task, plan = prepared(drawn, tmp_path / "out")
    load = OtherBundleOn(task.load, node.node_id, other)
    wrong = Task(load=load, settings=task.settings, folder=task.folder, output=task.output)
    try:
        with (
            connected(cluster.address, cpus=1),
            pytest.raises(GarBackendError, match="put the same bundle on every machine"),
        ):
            run_parts(wrong, plan, SHARE, 2, lambda progress: None)
    finally:
        cluster.remove_node(node)


def test_workers_that_die_as_they_load_end_the_run(tmp_path: Path, drawn: Path, cluster: Cluster) -> None:
    task, plan = prepared(drawn, tmp_path / "out")
    dying = Task(load=DiesLoading(), settings=task.settings, folder=task.folder, output=task.output)
    with connected(cluster.address, cpus=1), pytest.raises(GarBackendError, match="workers cannot be started"):
        run_parts(dying, plan, SHARE, 1, lambda progress: None)


def test_a_cluster_without_room_says_what_a_worker_takes(tmp_path: Path, drawn: Path, cluster: Cluster) -> None:
    task, plan = prepared(drawn, tmp_path / "out")
    with connected(cluster.address, cpus=1), pytest.raises(GarBackendError, match="which takes 64 processors"):
        run_parts(task, plan, Share(64, 0, 1), None, lambda progress: None)


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("127.0.0.1:1", "no cluster of Ray's can be reached"),
        ("ray://a:1", "give HOST:PORT"),
        ("nowhere", "give HOST:PORT"),
    ],
)
def test_an_unreachable_cluster_is_one_line(tmp_path: Path, drawn: Path, address: str, word: str) -> None:
    done = run(drawn, tmp_path / "out", "--address", address, code=1)
    assert word in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_bad_rows_do_not_end_the_run_but_are_told(tmp_path: Path, drawn: Path) -> None:
    value = json.loads(drawn.read_text())
    value["annotations"] = value["annotations"][:6]
    value["annotations"][1]["segmentation"] = {"size": [10, 10], "counts": "!"}
    value["annotations"][2]["image_id"] = "nobody"
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(value))
    done = run(path, tmp_path / "out", "--workers", "1", "--pictures", str(drawn.parent), "--json", code=1)
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["answered"], summary["failed"]) == (6, 4, 2)
    assert sorted("no picture of id" in text for text in summary["errors"]) == [False, True]
    assert "2 of 6 rows failed" in done.stderr


def test_settings_bind_only_where_there_is_something_to_do(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    path.write_text('{"images": [], "annotations": []}')
    for question in ("What is <Prompt0>?", "What colour is <Prompt0>?"):
        done = run(path, tmp_path / "out", "-q", question, code=1)
        assert done.stderr == f"error: {path}: holds no region\n"


def test_a_dry_run_writes_nothing_and_prices_the_work(tmp_path: Path, drawn: Path) -> None:
    arguments = ("--dry-run", "--json", "--sample", "4", "--workers", "3", "--hourly", "6")
    estimate = json.loads(run(drawn, tmp_path / "out", *arguments).stdout)
    assert not (tmp_path / "out").exists()
    assert (estimate["rows"], estimate["workers"], estimate["sampled"]["pictures"]) == (ROWS, 3, 4)
    assert 0 < estimate["sampled"]["rows"] <= 16
    assert estimate["price"] == pytest.approx(estimate["seconds"] * 3 / 3600 * 6, abs=1e-3)
    least = ROWS / estimate["rows_per_second_and_worker"] / 3
    assert estimate["seconds"] >= least - 0.2


@pytest.mark.parametrize("workers", ["0", "-1", "two", "1.5"])
def test_a_number_of_workers_that_is_none_is_wrong_usage(tmp_path: Path, drawn: Path, workers: str) -> None:
    assert "--workers" in run(drawn, tmp_path / "out", "--workers", workers, code=2).stderr


def test_nothing_is_told_to_rays_makers(tmp_path: Path) -> None:
    """Ray collects usage unless it is told not to; the variable is set while it runs, and no longer."""
    before = os.environ.get("RAY_USAGE_STATS_ENABLED")
    code = (
        "import os\nfrom gar_edge.runtime.label.cluster import connected\n"
        "with connected(None, cpus=1):\n"
        "    from ray._common.usage import usage_lib\n    print(usage_lib.usage_stats_enabled())\n"
        "print(os.environ.get('RAY_USAGE_STATS_ENABLED'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split()[-2:] == ["False", str(before)]


def test_workers_here_are_as_nice_as_the_command() -> None:
    """Ray would start them at 15, where they hardly get on beside anything else."""
    code = (
        "import os, ray\nfrom gar_edge.runtime.label.cluster import connected\n"
        "with connected(None, cpus=1):\n    print(ray.get(ray.remote(lambda: os.nice(0)).remote()), os.nice(0))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    workers, own = done.stdout.split()[-2:]
    assert workers == own


def test_ctrl_c_ends_it_with_one_line_and_nothing_is_lost(
    tmp_path: Path, drawn: Path, described: dict[str, list[int]]
) -> None:
    out = tmp_path / "out"
    with started(command(drawn, out, "--workers", "1"), subprocess.PIPE) as process:
        wait_for(process, out, 20)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    *progress, last = said.splitlines()  # a slow machine has told how far it was
    assert (process.returncode, last) == (1, "error: interrupted")
    assert all(" rows" in line for line in progress)
    safe = Output(out)
    kept = {key for name in Plan.read(safe.plan).parts for key in safe.journaled(name)}  # type: ignore[union-attr]
    run(drawn, out, "--workers", "1")
    assert tokens(out) == described
    assert kept <= {row["key"] for row in rows_of_output(safe)}
