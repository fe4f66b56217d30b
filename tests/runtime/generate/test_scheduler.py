"""Requests of many threads share one engine: each gets the answer that it gets alone, in its turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.schedules import Schedule, run_schedule
from helpers.slowed import slow

from gar_edge.runtime import Gar, GarBackendError, GarBusyError, GarPromptError, Options
from gar_edge.runtime.generate.sampling import Sampler

EXAMPLES = Path(__file__).parents[3] / "examples"
MASKS = {0: EXAMPLES / "scene_1_mask_0.png", 1: EXAMPLES / "scene_1_mask_1.png"}


@pytest.fixture
def mask(picture: np.ndarray) -> np.ndarray:
    mask = np.zeros(picture.shape[:2], bool)
    mask[5:30, 5:30] = True
    return mask


def at_once(*work: Callable[[], Any]) -> list[Any]:
    """What each function returns, all started together in threads of their own."""
    found: dict[int, Any] = {}
    start = threading.Barrier(len(work))

    def run(index: int) -> None:
        start.wait()
        found[index] = work[index]()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return [found[index] for index in range(len(work))]


@pytest.mark.parametrize("seed", range(3))
def test_any_schedule_gives_the_answers_of_single_questions(half_nano: Path, seed: int) -> None:
    """Joins, cancels, time limits, evictions, draws beside greedy answers, guesses; `make schedules` runs thousands."""
    outcome = run_schedule(half_nano, Schedule(requests=60, threads=6, seed=seed))
    assert outcome.wrong == []
    assert outcome.whole > 20


def test_pictures_of_several_threads_share_runs(
    tiny_bundle: Path, picture: np.ndarray, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    gar = Gar.load(tiny_bundle)
    slow(gar, monkeypatch, 0.01)
    sizes: list[int] = []
    bind = gar.pipeline.decoder.session.bind

    def counted(inputs: Any, outputs: Any) -> Any:
        run = bind(inputs, outputs)
        return lambda: (sizes.append(inputs["inputs_embeds"].shape[0]), run())

    monkeypatch.setattr(gar.pipeline.decoder.session, "bind", counted)
    options = Options(max_new_tokens=30)
    pictures = [np.roll(picture, 30 * shift, axis=1) for shift in range(4)]
    answers = at_once(*(lambda p=p: gar.open(p).describe(mask, options=options) for p in pictures))
    assert max(sizes) == 4
    alone = [Gar.load(tiny_bundle).open(one).describe(mask, options=options).tokens for one in pictures]
    assert [answer.tokens for answer in answers] == alone


def test_a_running_answer_waits_for_one_chunk_at_most(
    tiny_bundle: Path, picture: np.ndarray, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two steps of an answer lies one run for another's prompt, whatever that prompt's length."""
    monkeypatch.setattr("gar_edge.runtime.engines.onnxruntime.processor.OnnxRuntimeBackend.prefill_chunk", 20)
    gar, runs = Gar.load(tiny_bundle), []
    for name, session in (("decoder", gar.pipeline.decoder.session), ("tiles", gar.pipeline.vision._encoder)):
        bind = session.bind

        def noted(inputs: Any, outputs: Any, bind: Any = bind, name: str = name) -> Any:
            run = bind(inputs, outputs)
            step = name == "decoder" and inputs["inputs_embeds"].shape[1] == 1
            return lambda: (runs.append("step" if step else name), time.sleep(0.002), run())

        monkeypatch.setattr(session, "bind", noted)
    stream = gar.open(picture).stream(None, {1: mask}, options=Options(max_new_tokens=150))
    next(iter(stream))
    other = gar.open(np.ascontiguousarray(picture[:, ::-1])).describe(mask, options=Options(max_new_tokens=2))
    stream.finish()
    assert other.prompt_tokens > 10 * 20
    first, last = runs.index("step"), len(runs) - 1 - runs[::-1].index("step")
    between = "".join("s" if run == "step" else "p" for run in runs[first : last + 1]).split("s")
    assert "p" in between
    assert max(map(len, between)) == 1


def test_dialogues_that_take_turns_keep_their_prefixes(half_nano: Path) -> None:
    gar, options = Gar.load(half_nano), Options(max_new_tokens=12)
    chats = [
        gar.open(EXAMPLES / f"scene_{number}.png").chat({0: EXAMPLES / f"scene_{number}_mask_0.png"}, options=options)
        for number in (1, 2)
    ]
    last = [0, 0]
    for question in ("What colour is <Prompt0>?", "And its shape?", "Is it large?"):
        for which, chat in enumerate(chats):
            answer = chat.ask(question)
            assert answer.reuse.tokens_reused >= last[which]
            assert (answer.reuse.tiles_encoded > 0) == (last[which] == 0)
            last[which] = answer.prompt_tokens


def test_a_small_budget_forgets_the_one_least_recently_used(half_nano: Path) -> None:
    probe = Gar.load(half_nano)
    decoder = probe.pipeline.decoder
    options = Options(max_new_tokens=12)
    answer = probe.open(EXAMPLES / "scene_1.png").describe(MASKS[0], options=options)
    one = decoder.planned_bytes(answer.prompt_tokens + options.max_new_tokens)
    gar = Gar.load(half_nano, cache_bytes=3 * one)
    scenes = [gar.open(EXAMPLES / "scene_1.png") for _ in range(4)]
    for scene in scenes:
        scene.describe(MASKS[0], options=options)
        assert gar.scheduler.kept.bytes <= 3 * one
    again = [scene.describe(MASKS[0], options=options) for scene in (scenes[3], scenes[0])]
    assert again[0].reuse.tokens_prefilled == 1
    assert again[1].reuse.tokens_reused == 0
    assert again[0].tokens == again[1].tokens == answer.tokens


def test_live_callers_go_first(
    tiny_bundle: Path, picture: np.ndarray, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    gar = Gar.load(tiny_bundle, batch=1)
    slow(gar, monkeypatch, 0.01)
    scene, order = gar.open(picture), []
    begun = scene.stream(None, {1: mask}, options=Options(max_new_tokens=20))
    next(iter(begun))
    waiting = [
        scene.stream(None, {1: mask}, options=Options(max_new_tokens=3, live=live)) for live in (False, False, True)
    ]

    def wait(index: int) -> None:
        waiting[index].finish()
        order.append(index)

    at_once(*(lambda index=index: wait(index) for index in range(3)))
    assert order[0] == 2


def test_a_full_queue_refuses(
    tiny_bundle: Path, picture: np.ndarray, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    gar = Gar.load(tiny_bundle, batch=1, queue=2)
    slow(gar, monkeypatch, 0.02)
    scene = gar.open(picture)
    running = scene.stream(None, {1: mask}, options=Options(max_new_tokens=40))
    next(iter(running))
    waiting = [scene.stream(None, {1: mask}, options=Options(max_new_tokens=2)) for _ in range(2)]
    with pytest.raises(GarBusyError, match="2 requests wait already; ask again later"):
        scene.stream(None, {1: mask})
    assert len(scene.describe_all([mask] * 5, options=Options(max_new_tokens=2))) == 5  # these wait for room
    assert [stream.finish().finish_reason for stream in waiting] == ["length", "length"]
    running.close()


def test_a_stream_that_nobody_holds_any_more_is_cancelled(
    tiny_bundle: Path, picture: np.ndarray, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    gar = Gar.load(tiny_bundle, batch=1)
    slow(gar, monkeypatch, 0.02)
    scene = gar.open(picture)
    stream = scene.stream(None, {1: mask}, options=Options(max_new_tokens=500))
    next(iter(stream))
    del stream
    begin = time.monotonic()
    scene.describe(mask, options=Options(max_new_tokens=2))
    assert time.monotonic() - begin < 5  # 500 steps would take 10 s


def test_a_failed_run_ends_those_in_it_and_no_others(
    tiny_bundle: Path, picture: np.ndarray, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    gar = Gar.load(tiny_bundle)
    slow(gar, monkeypatch, 0.01)
    running = gar.open(picture).stream(None, {1: mask}, options=Options(max_new_tokens=60))
    next(iter(running))
    encode = gar.pipeline.vision.encode

    def broken(*_: object) -> None:
        raise GarBackendError("out of memory for tiles")

    monkeypatch.setattr(gar.pipeline.vision, "encode", broken)
    with pytest.raises(GarBackendError, match="out of memory for tiles"):
        gar.open(np.ascontiguousarray(picture[::-1])).describe(mask)
    monkeypatch.setattr(gar.pipeline.vision, "encode", encode)
    assert running.finish().finish_reason == "length"
    assert gar.open(picture).describe(mask, options=Options(max_new_tokens=2)).tokens


def test_a_fault_in_the_loop_leaves_nobody_waiting(
    tiny_bundle: Path, picture: np.ndarray, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    gar = Gar.load(tiny_bundle, batch=1)
    slow(gar, monkeypatch, 0.01)
    scene = gar.open(picture)
    streams = [scene.stream(None, {1: mask}, options=Options(max_new_tokens=100)) for _ in range(3)]
    next(iter(streams[0]))
    monkeypatch.setattr(gar.scheduler.kept, "settle", lambda *_: 1 / 0, raising=True)
    streams[0].close()
    time.sleep(0.1)
    monkeypatch.undo()
    for stream in streams[1:]:
        with pytest.raises(ZeroDivisionError):
            stream.finish()
    assert len(gar.open(picture).describe(mask, options=Options(max_new_tokens=2)).tokens) == 2


def test_an_engine_for_one_sequence_takes_turns(compat_bundle: Path, picture: np.ndarray, mask: np.ndarray) -> None:
    gar, options = Gar.load(compat_bundle, decoder="compat"), Options(max_new_tokens=6)
    pictures = [np.roll(picture, 30 * shift, axis=1) for shift in range(3)]
    answers = at_once(*(lambda p=p: gar.open(p).describe(mask, options=options) for p in pictures))
    alone = [Gar.load(compat_bundle).open(one).describe(mask, options=options).tokens for one in pictures]
    assert [answer.tokens for answer in answers] == alone


def test_regions_in_another_order_are_another_prompt(half_nano: Path) -> None:
    gar = Gar.load(half_nano)
    scene = gar.open(EXAMPLES / "scene_1.png")
    question = "Is <Prompt0> left of <Prompt1>?"
    answers = [scene.ask(question, dict(order)) for order in (MASKS.items(), reversed(MASKS.items()))]
    assert answers[0].prompt_tokens == answers[1].prompt_tokens
    assert answers[1].reuse.tokens_reused == 0


def test_logits_that_cannot_be_drawn_from_end_their_own_answer(
    half_nano: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gar = Gar.load(half_nano)
    slow(gar, monkeypatch, 0.01)
    scene = gar.open(EXAMPLES / "scene_1.png")
    draw = Sampler.draw

    def broken(self: Sampler, logits: np.ndarray) -> int:
        return draw(self, np.full_like(logits, np.nan))

    running = [scene.stream(None, {1: MASKS[0]}, options=Options(max_new_tokens=60)) for _ in range(2)]
    for stream in running:
        next(iter(stream))
    monkeypatch.setattr(Sampler, "draw", broken)
    with pytest.raises(ValueError, match="NaN"):
        scene.describe(MASKS[1], options=Options(temperature=1.0))
    assert [stream.finish().finish_reason for stream in running] == ["stop", "stop"]


@pytest.mark.parametrize("limits", [{"batch": 0}, {"queue": 0}])
def test_no_place_or_no_queue_at_all_is_refused(tiny_bundle: Path, limits: dict[str, int]) -> None:
    with pytest.raises(GarPromptError, match="must be at least 1"):
        Gar.load(tiny_bundle, **limits)


def test_a_cancel_that_is_no_event_is_refused() -> None:
    with pytest.raises(GarPromptError, match=r"threading\.Event, not bool"):
        Options(cancel=True)  # type: ignore[arg-type]


def test_a_conversation_goes_on_after_an_answer_that_failed(half_nano: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gar = Gar.load(half_nano)
    chat = gar.open(EXAMPLES / "scene_1.png").chat({0: MASKS[0]}, options=Options(max_new_tokens=10))
    chat.ask("What colour is <Prompt0>?")

    def broken(*_: object) -> None:
        raise GarBackendError("engine on fire")

    with monkeypatch.context() as patch:
        patch.setattr(gar.pipeline.decoder.session, "bind", broken)
        with pytest.raises(GarBackendError, match="on fire"):
            chat.ask("And its shape?")
    other = gar.open(EXAMPLES / "scene_1.png").chat({0: MASKS[0]}, options=Options(max_new_tokens=10))
    other.ask("What colour is <Prompt0>?")
    assert chat.ask("Is it large?").tokens == other.ask("Is it large?").tokens
