"""Parts, worked on by real models: rows are those that single questions give, whatever attempts there were before."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from helpers.drawn_coco import drawn_coco
from helpers.needs import from_dev
from PIL import Image
from pycocotools.coco import COCO

from gar_edge.runtime import Gar
from gar_edge.runtime.bundle.shipped import SHIPPED
from gar_edge.runtime.errors import GarBackendError, GarBundleError, GarPromptError
from gar_edge.runtime.jobs.log import JobLog
from gar_edge.runtime.label import part
from gar_edge.runtime.label.exports import rows_of_output, write_coco, write_jsonl
from gar_edge.runtime.label.inputs import Input
from gar_edge.runtime.label.output import Output
from gar_edge.runtime.label.plan import Gathered, Plan, rows_in
from gar_edge.runtime.label.settings import Settings
from gar_edge.runtime.label.task import Loader, Task, bundle_digest

pytest.importorskip("pyarrow", reason=from_dev("pyarrow"))
TOKENS = 32


@pytest.fixture(scope="module")
def gar() -> Gar:
    return Gar.load(SHIPPED, threads=1)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_coco(tmp_path_factory.mktemp("drawn"), 40)


def task_of(source: Path, out: Path, **settings: Any) -> Task:
    load = Loader.of(SHIPPED, backend="onnxruntime", decoder="standard", threads=1, batch=8)
    given = Settings(model="gar-nano", bundle=load.digest, max_new_tokens=TOKENS, **settings)
    return Task(load=load, settings=given, folder=Input(source).folder, output=out)


def plan_of(source: Path, output: Output, question: str | None = None) -> Plan:
    with output.held(), Gathered(Input(source).entries(question)) as gathered:
        return gathered.write(output.plan)


def texts(output: Output) -> dict[str, str]:
    return {row["id"]: row["text"] for row in rows_of_output(output)}


def alone(gar: Gar, path: Path, question: str | None = None) -> dict[str, str]:
    """What single questions give, of masks as pycocotools has them."""
    truth = COCO(str(path))
    found = {}
    for annotation in truth.anns.values():
        scene = gar.open(path.parent / truth.imgs[annotation["image_id"]]["file_name"])
        mask = truth.annToMask(annotation) > 0
        answer = scene.describe(mask) if question is None else scene.ask(question, {0: mask})
        found[str(annotation["id"])] = answer.text
    return found


@pytest.fixture(scope="module")
def described(gar: Gar, drawn: Path) -> dict[str, str]:
    return alone(gar, drawn)


def work(task: Task, plan: Plan, gar: Gar) -> list[part.PartDone | None]:
    return [part.work_on(name, task, gar, lambda tally: None) for name in plan.parts]


def test_rows_are_the_answers_of_single_questions(
    tmp_path: Path, drawn: Path, gar: Gar, described: dict[str, str]
) -> None:
    output = Output(tmp_path / "out")
    plan = plan_of(drawn, output)
    done = work(task_of(drawn, output.folder), plan, gar)
    assert texts(output) == described
    assert [one.rows for one in done if one] == list(plan.parts.values()) == [32, 8]
    assert list(output.journal.iterdir()) == []
    assert work(task_of(drawn, output.folder), plan, gar) == [None, None]


def test_a_question_about_all_regions(tmp_path: Path, drawn: Path, gar: Gar) -> None:
    output, question = Output(tmp_path / "out"), "What colour is <Prompt0>?"
    plan = plan_of(drawn, output, question)
    work(task_of(drawn, output.folder, question=question), plan, gar)
    assert texts(output) == alone(gar, drawn, question)


def test_what_earlier_attempts_answered_is_taken_and_not_asked_again(
    tmp_path: Path, drawn: Path, gar: Gar, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Output(tmp_path / "out")
    plan = plan_of(drawn, output)
    name = next(iter(plan.parts))
    rows = rows_in(plan.folder / f"{name}.jsonl")
    for attempt, own in enumerate((rows[:5], rows[3:9])):  # a second one began before the first was gone
        with output.open_journal(name) as log:
            for row in own:
                log.write(row.key, {"text": f"{attempt} {row.key}", "tokens": [1], "model": gar.manifest.name})
    torn = output.journal / f"{name}.torn.jsonl"
    torn.write_text('{"job": "' + rows[10].key + '", "text": "half')
    asked: list[str] = []
    run_jobs = part.run_jobs
    monkeypatch.setattr(
        part,
        "run_jobs",
        lambda jobs, *rest, **more: (asked.extend(job.key for job in jobs), run_jobs(jobs, *rest, **more))[1],
    )
    done = part.work_on(name, task_of(drawn, output.folder), gar, lambda tally: None)
    assert done is not None
    assert done.here == 32 - 9
    assert asked == [row.key for row in rows[9:]]
    found = {row["key"]: row["text"] for row in rows_of_output(output)}
    assert len(found) == 32
    earlier = [found[row.key] for row in rows[:9]]
    assert sorted({text.split()[1] for text in earlier}) == sorted(row.key for row in rows[:9])


def test_attempts_at_the_same_time_leave_each_row_once(
    tmp_path: Path, drawn: Path, gar: Gar, described: dict[str, str]
) -> None:
    output = Output(tmp_path / "out")
    plan = plan_of(drawn, output)
    task = task_of(drawn, output.folder)
    with ThreadPoolExecutor(3) as pool:
        for attempt in [pool.submit(work, task, plan, gar) for _ in range(3)]:
            attempt.result()
    rows = list(rows_of_output(output))
    assert len(rows) == len({row["key"] for row in rows}) == 40
    assert texts(output) == described


def test_bad_pictures_and_regions_are_rows_with_errors(tmp_path: Path, gar: Gar) -> None:
    Image.new("RGB", (60, 40)).save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    box = [{"box": [5, 5, 30, 30], "as_mask": True}]
    jobs: list[Any] = [
        {"image": "good.png", "regions": box},
        {"image": "none.png", "regions": box},
        {"image": "broken.png", "regions": box},
        {"image": "https://example.com/a.png", "regions": box},
        {"image": "good.png", "regions": [{"box": [900, 900, 910, 910], "as_mask": True}]},
        {"image": "good.png", "regions": [{"counts": "zz", "size": [40, 60]}]},
        {"image": "good.png", "regions": []},
        {"image": "good.png", "regions": box, "question": "What is <Prompt3>?"},
        {"image": "good.png", "regions": box, "question": "half \ud800"},
        {"image": "good.png", "regions": [{"mask": "data.parquet#3/mask"}]},
        {"regions": box},
        None,
        "text",
    ]
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps(jobs))
    output = Output(tmp_path / "out")
    plan = plan_of(path, output)
    work(task_of(path, output.folder), plan, gar)
    rows = sorted(rows_of_output(output), key=lambda row: row["place"])
    assert len(rows) == len(jobs)
    answered = [row["place"] for row in rows if row["error"] is None]
    assert answered in ([0], [0, 8])
    told = {row["place"]: row["error"] for row in rows}
    for place, word in {1: "none.png", 2: "broken.png", 3: "not fetched", 4: "outside", 5: "run", 7: "Prompt3"}.items():
        assert word in told[place]
    for where in (tmp_path / "rows.jsonl", tmp_path / "rows.coco.json"):
        (write_coco if "coco" in where.name else write_jsonl)(output, where)
    assert len((tmp_path / "rows.jsonl").read_text("utf-8").splitlines()) == len(jobs)
    assert len(json.loads((tmp_path / "rows.coco.json").read_text())["annotations"]) == len(jobs)


def test_a_row_that_kills_workers_gets_that_as_its_error(tmp_path: Path, drawn: Path, gar: Gar) -> None:
    """As a killed process leaves it: journals without a line, and the last row begun alone."""
    output = Output(tmp_path / "out")
    plan = plan_of(drawn, output)
    name = list(plan.parts)[-1]
    rows = rows_in(plan.folder / f"{name}.jsonl")
    for _ in range(3):
        output.open_journal(name).__exit__(None, None, None)
    output.begin(name, rows[2].key)
    part.work_on(name, task_of(drawn, output.folder), gar, lambda tally: None)
    errors = {row["key"]: row["error"] for row in rows_of_output(output)}
    assert errors == {row.key: None for row in rows} | {rows[2].key: "the worker died whenever it came to this row"}
    assert list(output.journal.iterdir()) == []


def test_a_full_disk_ends_the_part_and_what_was_written_counts(
    tmp_path: Path, drawn: Path, gar: Gar, monkeypatch: pytest.MonkeyPatch, described: dict[str, str]
) -> None:
    output = Output(tmp_path / "out")
    plan = plan_of(drawn, output)
    write = JobLog.write
    written: list[str] = []

    def full(log: JobLog, key: str, fields: dict[str, Any]) -> None:
        if len(written) == 7:
            raise OSError(28, "No space left on device", "out")
        written.append(key)
        write(log, key, fields)

    monkeypatch.setattr(JobLog, "write", full)
    name = next(iter(plan.parts))
    with pytest.raises(OSError, match="No space left"):
        part.work_on(name, task_of(drawn, output.folder), gar, lambda tally: None)
    monkeypatch.undo()
    assert list(output.journaled(name)) == written
    assert not output.finished()
    work(task_of(drawn, output.folder), plan, gar)
    assert texts(output) == described


def test_engine_errors_are_no_rows(tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output(tmp_path / "out")
    plan = plan_of(drawn, output)
    with Gar.load(SHIPPED, threads=1) as gar:

        def broken(*_: object) -> object:
            raise GarBackendError("the engine is gone")

        monkeypatch.setattr(gar.pipeline.decoder.session, "bind", broken)
        with pytest.raises(GarBackendError, match="the engine is gone"):
            work(task_of(drawn, output.folder), plan, gar)
    assert not output.finished()
    assert not output.journaled(next(iter(plan.parts)))


def test_an_input_that_has_grown_is_planned_anew_and_nothing_is_lost(tmp_path: Path, drawn: Path, gar: Gar) -> None:
    output = Output(tmp_path / "out")
    value = json.loads(drawn.read_text())
    short = tmp_path / "short.json"
    short.write_text(json.dumps(value | {"annotations": value["annotations"][:36]}))
    for image in drawn.parent.glob("*.png"):
        (tmp_path / image.name).symlink_to(image)
    old = plan_of(short, output)
    first, second = old.parts
    task = task_of(short, output.folder)
    part.work_on(first, task, gar, lambda tally: None)
    rows = rows_in(old.folder / f"{second}.jsonl")
    with output.open_journal(second) as log:
        log.write(rows[0].key, {"text": "kept", "tokens": [1], "model": "m"})
    short.write_text(json.dumps(value))
    with output.held(), Gathered(Input(short).entries(None)) as gathered:
        output.retire(old)
        gathered.leave_out(output.keys())
        new = gathered.write(output.plan)
    assert new.rows == 40 - 32 - 1
    assert part.work_on(second, task, gar, lambda tally: None) is None  # an attempt that the driver outlived
    work(task, new, gar)
    found = list(rows_of_output(output))
    assert sorted(int(row["id"]) for row in found) == list(range(1, 41))
    assert sum(row["text"] == "kept" for row in found) == 1


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    given = Settings(model="a", bundle="0" * 64, question="What is <Prompt0>?")
    given.check(tmp_path)
    given.note(tmp_path)
    given.check(tmp_path)
    other = Settings(model="a", bundle="1" * 64, question=None, choose=("x", "y"))
    with pytest.raises(
        GarPromptError, match=r'bundle was "0{59}…, now .*; question was "What is <Prompt0>\?", now null'
    ) as told:
        other.check(tmp_path)
    assert "choose was [], now" in str(told.value)
    assert "model" not in str(told.value).replace("bundle", "")
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(GarPromptError, match="cannot be read"):
        given.check(tmp_path)


def test_two_runs_into_one_folder_and_a_foreign_folder_are_refused(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    with output.held(), pytest.raises(GarPromptError, match="another run labels"), output.held():
        pass
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.doc").write_text("")
    with pytest.raises(GarPromptError, match=r"holds thesis\.doc"), Output(foreign).held():
        pass


def test_a_bundle_that_differs_here_is_refused_by_its_digest(tmp_path: Path) -> None:
    mine = bundle_digest(SHIPPED)
    with pytest.raises(GarBundleError, match=f"it is {mine[:12]}, where it was asked 000000000000"):
        Loader(bundle=SHIPPED, digest="0" * 64)()
    with pytest.raises(GarBundleError, match="put the bundle there on every machine"):
        Loader(bundle=tmp_path / "none", digest=mine)()


def test_captions_in_coco_are_those_of_their_annotations(
    tmp_path: Path, drawn: Path, gar: Gar, described: dict[str, str]
) -> None:
    output = Output(tmp_path / "out")
    work(task_of(drawn, output.folder), plan_of(drawn, output), gar)
    write_coco(output, tmp_path / "captions.json")
    found, truth = COCO(str(tmp_path / "captions.json")), COCO(str(drawn))
    assert {str(key): one["caption"] for key, one in found.anns.items()} == described
    for key, annotation in truth.anns.items():
        assert {name: found.anns[key][name] for name in annotation} == annotation
    for key, image in truth.imgs.items():
        if truth.imgToAnns[key]:
            assert found.imgs[key] == image
    assert [entry.value["id"] for entry in Input(tmp_path / "captions.json", drawn.parent).entries(None)] == list(
        truth.anns
    )
