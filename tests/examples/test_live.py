"""Answers about the newest frame, and the loop that never waits for them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.video_files import square_frame, square_mask, write_video

from gar_edge.models.nano.vocabulary import COLOURS
from gar_edge.runtime import Answer, Frame, Gar, GarError, GarMaskError, LiveAnswers, Options
from gar_edge.runtime.files.paths import remember_bundle

ROOT = Path(__file__).parents[2]
SCENE, MASK = ROOT / "examples/scene_1.png", ROOT / "examples/scene_1_mask_0.png"


class Outcomes:
    """What came back, and a way to wait for it."""

    def __init__(self) -> None:
        self.all: list[tuple[Frame, Answer | GarError]] = []
        self._more = threading.Condition()

    def __call__(self, frame: Frame, outcome: Answer | GarError) -> None:
        with self._more:
            self.all.append((frame, outcome))
            self._more.notify_all()

    def wait(self, count: int) -> None:
        with self._more:
            assert self._more.wait_for(lambda: len(self.all) >= count, 30)


@pytest.fixture(scope="module")
def gar(half_nano: Path) -> Gar:
    return Gar.load(half_nano, threads=1)


def test_a_frame_gets_its_answer(gar: Gar) -> None:
    outcomes = Outcomes()
    expected = gar.open(SCENE).ask("What colour is <Prompt2>?", {2: MASK})
    with LiveAnswers(gar, outcomes) as live:
        live.offer(Frame(SCENE, {2: MASK}, "What colour is <Prompt2>?", tag=7))
        outcomes.wait(1)
    ((frame, answer),) = outcomes.all
    assert frame.tag == 7
    assert isinstance(answer, Answer)
    assert answer.tokens == expected.tokens


def test_only_the_newest_waiting_frame_is_answered(gar: Gar, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes, gate, begun = Outcomes(), threading.Event(), threading.Event()
    opened = gar.open

    def held(*arguments: object, **options: object) -> object:
        begun.set()
        assert gate.wait(30)
        return opened(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(gar, "open", held)
    with LiveAnswers(gar, outcomes) as live:
        live.offer(Frame(SCENE, {1: MASK}, tag=0))
        assert begun.wait(30)
        for tag in (1, 2, 3):
            live.offer(Frame(SCENE, {1: MASK}, tag=tag))
        gate.set()
        outcomes.wait(2)
        assert live.dropped == 2
    assert [frame.tag for frame, _ in outcomes.all] == [0, 3]


def test_answers_that_come_when_a_newer_frame_waits_are_counted(gar: Gar, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go, counts = threading.Semaphore(0), threading.Semaphore(0), []
    opened = gar.open

    def held(*arguments: object, **options: object) -> object:
        begun.release()
        assert go.acquire(timeout=30)
        return opened(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(gar, "open", held)
    with LiveAnswers(gar, lambda frame, outcome: counts.append((live.late, live.late_in_a_row))) as live:
        live.offer(Frame(SCENE, {1: MASK}))
        for newer in (True, True, False, False, True, False):
            assert begun.acquire(timeout=30)
            if newer:
                live.offer(Frame(SCENE, {1: MASK}))
            go.release()
            if not newer:
                live.finish()
                live.offer(Frame(SCENE, {1: MASK}))
        go.release()
        live.finish()
    assert counts == [(1, 1), (2, 2), (2, 0), (2, 0), (3, 1), (3, 0), (3, 0)]


def test_a_frame_may_be_a_clip(gar: Gar) -> None:
    outcomes = Outcomes()
    question, masks = "What colour is <Prompt0>?", [square_mask(step) for step in range(3)]
    clip = gar.open_clip([square_frame(step) for step in range(3)])
    expected = clip.ask(question, {0: masks}, options=Options(max_new_tokens=4))
    with LiveAnswers(gar, outcomes, options=Options(max_new_tokens=4)) as live:
        live.offer(Frame(clip, {0: masks}, question))
        outcomes.wait(1)
    ((_, answer),) = outcomes.all
    assert isinstance(answer, Answer)
    assert answer.tokens == expected.tokens


def test_a_bad_frame_is_an_outcome_and_the_next_one_is_answered(gar: Gar) -> None:
    outcomes = Outcomes()
    with LiveAnswers(gar, outcomes) as live:
        live.offer(Frame(SCENE, {1: np.zeros((5, 5), bool)}))
        outcomes.wait(1)
        live.offer(Frame(SCENE, {1: MASK}))
        outcomes.wait(2)
    assert isinstance(outcomes.all[0][1], GarMaskError)
    assert isinstance(outcomes.all[1][1], Answer)


def test_closing_cancels_the_answer_in_the_making(gar: Gar) -> None:
    outcomes = Outcomes()
    live = LiveAnswers(gar, outcomes, options=Options(max_new_tokens=500, stop=("never said",)))
    live.offer(Frame(SCENE, {1: MASK}))
    live.offer(Frame(SCENE, {1: MASK}))
    assert live.close(30)
    assert live.close(1)  # twice is fine
    count = len(outcomes.all)
    time.sleep(0.05)
    assert len(outcomes.all) == count


def test_finishing_waits_for_what_was_offered(gar: Gar) -> None:
    outcomes = Outcomes()
    with LiveAnswers(gar, outcomes) as live:
        live.finish()  # nothing to wait for
        live.offer(Frame(SCENE, {1: MASK}))
        live.finish()
        assert len(outcomes.all) == 1


def test_a_callback_that_fails_is_heard_of(gar: Gar) -> None:
    def broken(frame: Frame, outcome: Answer | GarError) -> None:
        raise RuntimeError("the robot fell over")

    def offer_until_refused(live: LiveAnswers) -> None:
        for _ in range(600):
            live.offer(Frame(SCENE, {1: MASK}))
            time.sleep(0.05)

    with LiveAnswers(gar, broken) as live, pytest.raises(RuntimeError, match="fell over"):
        offer_until_refused(live)
    with LiveAnswers(gar, broken) as live:
        live.offer(Frame(SCENE, {1: MASK}))
        with pytest.raises(RuntimeError, match="fell over"):
            live.finish()


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Two seconds of a red square that moves over grey."""
    return write_video(tmp_path / "moving.avi", map(square_frame, range(60)))


def loop(
    source: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> subprocess.CompletedProcess[str]:
    """The example as a user runs it; `bundle` is the one exported last."""
    monkeypatch.setenv("GAR_EDGE_HOME", str(tmp_path))
    remember_bundle(bundle)
    command = [sys.executable, str(ROOT / "examples/camera_loop.py"), str(source), "20", "20", "100", "90"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_camera_loop_runs_at_the_videos_pace(
    video: Path, half_nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = loop(video, half_nano, tmp_path, monkeypatch)
    assert result.returncode == 0, result.stderr
    *answers, last = result.stdout.splitlines()
    assert last.startswith("60 frames, ")
    assert answers
    assert all(" s  " in line and "error" not in line for line in answers)


def test_a_source_that_gives_no_frame_is_an_error(
    half_nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.avi"
    broken.write_bytes(b"no video")
    result = loop(broken, half_nano, tmp_path, monkeypatch)
    assert result.returncode == 1
    assert "error: no frame" in result.stderr


def test_pick_by_description(half_nano: Path) -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        from pick_by_description import pick
    finally:
        sys.path.pop(0)
    masks = [str(ROOT / f"examples/scene_1_mask_{number}.png") for number in range(5)]
    gar = Gar.load(half_nano)
    colours = [gar.open(SCENE).ask("What colour is <Prompt1>?", {1: mask}).text for mask in masks]
    wanted = colours[0]
    found = pick(gar, str(SCENE), "What colour is {}?", [wanted, *sorted({*COLOURS} - {wanted})], masks)
    assert sorted(mask for _, mask in found) == masks
    sure = {mask for probability, mask in found if probability > 0.9}
    assert sure == {mask for mask, colour in zip(masks, colours, strict=True) if colour == wanted}
    assert found == sorted(found, reverse=True)


def test_answers_that_take_longer_than_frames_lie_apart_are_late(gar: Gar) -> None:
    counts: list[tuple[int, int]] = []
    for after in (0.0, 600.0):
        note = lambda frame, outcome: counts.append((live.late, live.late_in_a_row))  # noqa: E731
        with LiveAnswers(gar, note, late_after=after) as live:
            for _ in range(2):
                live.offer(Frame(SCENE, {1: MASK}))
                live.finish()
    assert counts == [(1, 1), (2, 2), (0, 0), (0, 0)]
