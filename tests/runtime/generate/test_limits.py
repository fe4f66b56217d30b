"""Time limits, cancelling and closing: an answer ends when it must, and leaves the model usable or gone."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from helpers.slowed import slow

from gar_edge.runtime import Gar, GarBackendError, GarPromptError, Options


@pytest.fixture
def gar(tiny_bundle: Path) -> Gar:
    return Gar.load(tiny_bundle)


@pytest.fixture
def mask(picture: np.ndarray) -> np.ndarray:
    mask = np.zeros(picture.shape[:2], bool)
    mask[5:30, 5:30] = True
    return mask


def test_an_answer_out_of_time_says_what_it_has(
    gar: Gar, tiny_bundle: Path, picture: np.ndarray, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Gar.load(tiny_bundle).open(picture).describe(mask, options=Options(max_new_tokens=40))
    slow(gar, monkeypatch, 0.05)
    answer = gar.open(picture).describe(mask, options=Options(max_new_tokens=40, seconds=0.5))
    assert answer.finish_reason == "timeout"
    assert len(answer.tokens) < 40
    assert answer.tokens == whole.tokens[: len(answer.tokens)]


def test_time_that_suffices_changes_nothing(gar: Gar, picture: np.ndarray, mask: np.ndarray) -> None:
    answers = [
        gar.open(picture).describe(mask, options=Options(max_new_tokens=5, seconds=seconds)) for seconds in (None, 600)
    ]
    assert answers[0].tokens == answers[1].tokens
    assert answers[1].finish_reason == "length"


def test_no_time_at_all_gives_an_empty_answer(gar: Gar, picture: np.ndarray, mask: np.ndarray) -> None:
    scene = gar.open(picture)
    answer = scene.describe(mask, options=Options(max_new_tokens=5, seconds=1e-9))
    assert (answer.tokens, answer.text, answer.finish_reason) == ((), "", "timeout")
    assert len(scene.describe(mask, options=Options(max_new_tokens=5)).tokens) == 5


def test_a_batch_out_of_time_ends_every_answer(
    gar: Gar, picture: np.ndarray, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(gar, monkeypatch, 0.05)
    answers = gar.open(picture).describe_all([mask, ~mask], options=Options(max_new_tokens=40, seconds=0.5))
    assert [answer.finish_reason for answer in answers] == ["timeout", "timeout"]


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_impossible_limits_are_refused(seconds: float) -> None:
    with pytest.raises(GarPromptError, match="seconds must be above 0"):
        Options(seconds=seconds)


def test_a_closed_model_refuses_and_frees(tiny_bundle: Path, picture: np.ndarray, mask: np.ndarray) -> None:
    with Gar.load(tiny_bundle) as gar:
        scene = gar.open(picture)
        scene.describe(mask, options=Options(max_new_tokens=2))
        held = [
            weakref.ref(gar.pipeline.decoder.session),
            weakref.ref(gar.pipeline.vision),
            weakref.ref(gar.pipeline.backend),
        ]
    gc.collect()
    assert [one() for one in held] == [None, None, None]
    for use in (lambda: gar.open(picture), lambda: scene.describe(mask), lambda: scene.describe_all([mask, mask])):
        with pytest.raises(GarBackendError, match="was closed; load it again"):
            use()
    gar.close()  # twice is fine


def test_closing_while_another_thread_asks(gar: Gar, picture: np.ndarray, mask: np.ndarray) -> None:
    """The answer ends, by the caller's wish or by the error; nothing of it stays in the caches."""
    cancel, ended = threading.Event(), []
    stream = gar.open(picture).stream(None, {1: mask}, options=Options(max_new_tokens=200, cancel=cancel))
    first = next(iter(stream))

    def finish() -> None:
        try:
            ended.append(stream.finish().finish_reason)
        except GarBackendError as error:
            ended.append(str(error))

    thread = threading.Thread(target=finish)
    thread.start()
    cancel.set()
    gar.close()
    thread.join(30)
    assert first is not None
    assert len(ended) == 1
    assert gar.scheduler.kept.bytes == 0
