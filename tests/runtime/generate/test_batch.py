"""Questions answered side by side get, token for token, the answers that they get alone."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.slowed import slow

from gar_edge.runtime import Answer, Gar, GarBackendError, GarMaskError, GarPromptError, Options
from gar_edge.runtime.images.loading import ImageLike
from gar_edge.runtime.images.mask_images import MaskLike
from gar_edge.runtime.model.batch import SequenceBatch
from gar_edge.runtime.model.in_place import InPlaceSequence
from gar_edge.runtime.model.start import start_sequence

EXAMPLES = Path(__file__).parents[3] / "examples"
QUESTION = "Is <Prompt0> left of <Prompt3>?"


@pytest.fixture
def gar(tiny_bundle: Path) -> Gar:
    return Gar.load(tiny_bundle)


@pytest.fixture
def masks(picture: np.ndarray) -> list[np.ndarray]:
    """Five regions of a picture of 130x90, in different tiles."""
    found = []
    for x, y in ((5, 5), (100, 60), (40, 10), (60, 40), (20, 60)):
        mask = np.zeros(picture.shape[:2], bool)
        mask[y : y + 20, x : x + 20] = True
        found.append(mask)
    return found


@pytest.fixture(scope="module")
def drawn() -> Path:
    return EXAMPLES / "scene_1.png"


@pytest.fixture(scope="module")
def shapes() -> list[Path]:
    """Five regions of the drawn scene; gar-nano has something else to say of each."""
    return [EXAMPLES / f"scene_1_mask_{number}.png" for number in range(5)]


def alone(folder: Path, picture: ImageLike, mask: MaskLike, options: Options) -> Answer:
    return Gar.load(folder, cache_bytes=0).open(picture).describe(mask, options=options)


@pytest.mark.parametrize("places", [2, 3, 8])
@pytest.mark.parametrize("chunk", [512, 100])
def test_descriptions_are_those_of_single_questions(
    half_nano: Path, drawn: Path, shapes: list[Path], places: int, chunk: int
) -> None:
    """Whether all fit at once or wait for places, whether a prompt takes one run or several."""
    options = Options(max_new_tokens=60)
    gar = Gar.load(half_nano, batch=places)
    gar.pipeline.decoder.chunk = chunk
    answers = gar.open(drawn).describe_all(shapes, options=options)
    assert [answer.tokens for answer in answers] == [alone(half_nano, drawn, m, options).tokens for m in shapes]
    assert len({len(answer.tokens) for answer in answers}) > 1


def test_prompts_and_answers_of_different_lengths(half_nano: Path, drawn: Path, shapes: list[Path]) -> None:
    """They end by themselves or at a stop text, at different steps."""
    options = Options(max_new_tokens=60, stop=("yellow", "near"))
    questions = [(None, {1: mask}) for mask in shapes] + [(QUESTION, {0: shapes[0], 3: shapes[1]})]
    expected = [Gar.load(half_nano).open(drawn).stream(*question, options=options).finish() for question in questions]
    assert len({len(answer.tokens) for answer in expected}) > 1
    found = list(Gar.load(half_nano, batch=3).open(drawn).answer_all(questions, options=options))
    assert sorted(index for index, _ in found) == list(range(len(questions)))
    for index, answer in found:
        assert (answer.tokens, answer.text, answer.finish_reason, answer.prompt_tokens) == (
            expected[index].tokens, expected[index].text, expected[index].finish_reason, expected[index].prompt_tokens,
        )  # fmt: skip


def test_tiles_are_encoded_once_for_all(
    gar: Gar, picture: np.ndarray, masks: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = gar.open(picture)
    runs = []
    encode = gar.pipeline.vision.encode

    def counted(pixels: np.ndarray, *rest: object) -> object:
        runs.append(len(pixels))
        return encode(pixels, *rest)

    monkeypatch.setattr(gar.pipeline.vision, "encode", counted)
    answers = scene.describe_all([*masks[:2], masks[0]], options=Options(max_new_tokens=2))
    assert len(runs) == -(-10 // gar.pipeline.vision.at_once)
    assert [answer.reuse.tiles_encoded for answer in answers] == [7, 3, 0]  # all; thumbnail and two tiles; seen before
    assert sum(runs) == 10
    assert answers[0].tokens == answers[2].tokens


def test_draws_with_a_seed_are_those_of_single_questions(half_nano: Path, drawn: Path, shapes: list[Path]) -> None:
    options = Options(max_new_tokens=20, temperature=1.5, seed=3)
    answers = Gar.load(half_nano).open(drawn).describe_all(shapes[:3], options=options)
    assert [answer.tokens for answer in answers] == [alone(half_nano, drawn, m, options).tokens for m in shapes[:3]]


def test_too_little_memory_shrinks_the_batch_and_says_so(
    gar: Gar, picture: np.ndarray, masks: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, options = gar.open(picture), Options(max_new_tokens=4)
    expected = [answer.tokens for answer in scene.describe_all(masks, options=options)]
    length = gar.open(picture).describe(masks[0], options=options).prompt_tokens + options.max_new_tokens
    one = gar.pipeline.decoder.planned_bytes(length)
    for free, at_once in ((5 * one, 2), (one, 1)):
        monkeypatch.setattr(gar.pipeline.backend, "free_memory", lambda free=free: free)
        with pytest.warns(UserWarning, match=rf"do not fit.*: {at_once} regions are answered at a time"):
            assert [answer.tokens for answer in scene.describe_all(masks, options=options)] == expected


def test_cancelling_ends_all(
    tiny_bundle: Path, picture: np.ndarray, masks: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    gar, cancel = Gar.load(tiny_bundle, batch=2), threading.Event()
    slow(gar, monkeypatch, 0.01)
    questions = [(None, {1: mask}) for mask in masks]
    answers = gar.open(picture).answer_all(questions, options=Options(max_new_tokens=40, cancel=cancel))
    index, first = next(answers)
    cancel.set()
    rest = dict(answers)
    assert first.finish_reason == "length"
    assert sorted([index, *rest]) == [0, 1, 2, 3, 4]
    assert {answer.finish_reason for answer in rest.values()} <= {"cancelled", "length"}
    assert sum(answer.finish_reason == "cancelled" for answer in rest.values()) >= 3
    cancel.clear()
    assert len(gar.open(picture).describe(masks[0], options=Options(max_new_tokens=3)).tokens) == 3


def test_a_bad_region_is_refused_before_anything_is_computed(
    gar: Gar, picture: np.ndarray, masks: list[np.ndarray]
) -> None:
    scene = gar.open(picture)
    with pytest.raises(GarMaskError, match="empty"):
        scene.describe_all([masks[0], np.zeros_like(masks[0])])
    with pytest.raises(GarPromptError, match="does not name <Prompt3>"):
        scene.answer_all([("What is <Prompt0>?", {0: masks[0], 3: masks[1]})])
    assert gar.scheduler.kept.bytes == 0


def test_no_region_gives_no_answer(gar: Gar, picture: np.ndarray) -> None:
    assert gar.open(picture).describe_all([]) == []


def test_an_engine_for_one_sequence_answers_one_by_one(
    compat_bundle: Path, picture: np.ndarray, masks: list[np.ndarray]
) -> None:
    options = Options(max_new_tokens=5)
    gar = Gar.load(compat_bundle, decoder="compat")
    assert gar.scheduler.places == 1
    found = gar.open(picture).describe_all(masks[:2], options=options)
    expected = Gar.load(compat_bundle).open(picture).describe_all(masks[:2], options=options)
    assert [answer.tokens for answer in found] == [answer.tokens for answer in expected]


def test_a_batch_holds_its_places_and_no_more(gar: Gar) -> None:
    graph = gar.pipeline.decoder
    batch, sequence = SequenceBatch(graph, 1), start_sequence(graph, 64)
    assert isinstance(sequence, InPlaceSequence)
    sequence.prefill(gar.pipeline.backend.zeros((graph.dims.context, graph.dims.hidden), graph.dtype))
    batch.join(sequence)
    with pytest.raises(GarBackendError, match="the batch holds 1 sequences"):
        batch.join(sequence)
    with pytest.raises(GarBackendError, match="model and engine hold 1024 positions"):
        batch.step(np.zeros((1, graph.dims.hidden), graph.dtype))
