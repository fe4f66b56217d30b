"""Whole answers, from pixels to tokens, against a GAR made of torch, ONNX Runtime's RoiAlign and transformers."""

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.reference_gar import Reference
from helpers.slowed import slow

from gar_edge.runtime import Gar, GarBackendError, GarMaskError, GarPromptError, Options

TIE = 1e-4  # closer calls of the reference's two best logits are nobody's to win


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(width * height).integers(0, 256, (height, width, 3), np.uint8)


def rectangle(image: np.ndarray, x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    height, width = image.shape[:2]
    mask = np.zeros((height, width), bool)
    mask[int(y1 * height) : int(y2 * height), int(x1 * width) : int(x2 * width)] = True
    return mask


def one_pixel(image: np.ndarray) -> np.ndarray:
    mask = np.zeros(image.shape[:2], bool)
    mask[image.shape[0] // 2, image.shape[1] - 1] = True
    return mask


CASES = {
    "one region": ((130, 90), None, lambda i: {1: rectangle(i, 0.2, 0.3, 0.6, 0.9)}),
    "tall image": ((90, 700), None, lambda i: {0: rectangle(i, 0.1, 0.6, 0.8, 0.7)}),
    "wide image": ((1400, 180), None, lambda i: {4: rectangle(i, 0.3, 0.2, 0.5, 0.9)}),
    "one pixel": ((64, 64), None, lambda i: {2: one_pixel(i)}),
    "full image": ((57, 200), None, lambda i: {3: rectangle(i, 0, 0, 1, 1)}),
    "two overlapping": (
        (200, 150),
        "Is <Prompt3> over <Prompt0>?",
        lambda i: {3: rectangle(i, 0.2, 0.2, 0.7, 0.7), 0: rectangle(i, 0.5, 0.1, 0.9, 0.6)},
    ),
    "one hides another": (
        (100, 100),
        "<Prompt0>, <Prompt1>?",
        lambda i: {0: rectangle(i, 0.1, 0.1, 0.9, 0.9), 1: rectangle(i, 0.3, 0.3, 0.5, 0.5)},
    ),
    "five regions": (
        (300, 200),
        "Which of <Prompt0>, <Prompt1>, <Prompt2>, <Prompt3> and <Prompt4> is the tallest?\nAnswer with a letter.",
        lambda i: {k: rectangle(i, 0.1 + 0.15 * k, 0.1, 0.3 + 0.15 * k, 0.4 + 0.1 * k) for k in range(5)},
    ),
    "one region with a question": ((120, 240), "What is <Prompt0>?", lambda i: {0: rectangle(i, 0.4, 0.4, 0.6, 0.6)}),
}


@pytest.mark.parametrize("max_tiles", [1, 4])
@pytest.mark.parametrize("name", sorted(CASES))
def test_answers_are_equal_token_for_token(gar: Gar, by_the_book: Reference, name: str, max_tiles: int) -> None:
    (width, height), question, make = CASES[name]
    image = noise(width, height)
    masks = make(image)
    with torch.inference_mode():
        tokens, margins, ids = by_the_book.answer(image, masks, question, max_tiles, 8)
    scene = gar.open(image, max_tiles=max_tiles)
    options = Options(max_new_tokens=8)
    if question is None:
        ((number, mask),) = masks.items()
        answer = scene.describe(mask, number=number, options=options)
    else:
        answer = scene.ask(question, masks, options=options)
    assert answer.prompt_tokens == len(ids)
    certain = next((i for i, margin in enumerate(margins) if margin < TIE), len(tokens))
    assert answer.tokens[:certain] == tuple(tokens[:certain])
    if certain == len(tokens):
        assert answer.tokens == tuple(tokens)


def test_chunked_prefill_gives_the_same_answer(
    tiny_bundle: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = rectangle(picture, 0.2, 0.2, 0.7, 0.8)
    options = Options(max_new_tokens=12)
    whole = Gar.load(tiny_bundle).open(picture).describe(mask, options=options)
    monkeypatch.setattr("gar_edge.runtime.engines.onnxruntime.processor.OnnxRuntimeBackend.prefill_chunk", 17)
    assert Gar.load(tiny_bundle).open(picture).describe(mask, options=options).tokens == whole.tokens
    assert whole.prompt_tokens > 17


def test_streamed_text_is_the_answers_text(tiny_bundle: Path, picture: np.ndarray) -> None:
    scene = Gar.load(tiny_bundle).open(picture)
    mask = rectangle(picture, 0.2, 0.2, 0.7, 0.8)
    stream = scene.stream(None, {1: mask}, options=Options(max_new_tokens=40))
    pieces = list(stream)
    answer = stream.finish()
    assert len(pieces) > 1
    assert "".join(pieces) == answer.text == scene.describe(mask, options=Options(max_new_tokens=40)).text


def test_sampling_repeats_with_its_seed(tiny_bundle: Path, picture: np.ndarray) -> None:
    scene = Gar.load(tiny_bundle).open(picture)
    mask = rectangle(picture, 0.2, 0.2, 0.7, 0.8)

    def draw(seed: int) -> tuple[int, ...]:
        return scene.describe(mask, options=Options(max_new_tokens=12, temperature=1.5, top_p=0.95, seed=seed)).tokens

    assert draw(1) == draw(1) != draw(2)


def test_an_answer_ends_at_max_new_tokens(tiny_bundle: Path, picture: np.ndarray) -> None:
    answer = (
        Gar.load(tiny_bundle).open(picture).describe(rectangle(picture, 0, 0, 1, 1), options=Options(max_new_tokens=3))
    )
    assert (len(answer.tokens), answer.finish_reason) == (3, "length")


def test_an_answer_ends_where_the_context_does(tiny_bundle: Path, picture: np.ndarray) -> None:
    gar = Gar.load(tiny_bundle)
    room = 5
    question = "<Prompt0>"
    length = len(gar.pipeline.prompts.build(question, [0], 2))
    question += "x" * (gar.manifest.dimensions.context - length - room)
    answer = gar.open(picture, max_tiles=1).ask(question, {0: rectangle(picture, 0, 0, 1, 1)})
    assert (len(answer.tokens), answer.finish_reason) == (room, "length")


def test_a_prompt_longer_than_the_context_is_refused(tiny_bundle: Path, picture: np.ndarray) -> None:
    scene = Gar.load(tiny_bundle).open(picture)
    with pytest.raises(GarPromptError, match=re.escape("the model takes 1024")):
        scene.ask("<Prompt0>" + "x" * 2000, {0: rectangle(picture, 0, 0, 1, 1)})


def test_a_stop_text_ends_the_answer_and_is_left_out(tiny_bundle: Path, picture: np.ndarray) -> None:
    scene = Gar.load(tiny_bundle).open(picture)
    mask = rectangle(picture, 0.2, 0.2, 0.7, 0.8)
    text = scene.describe(mask, options=Options(max_new_tokens=30)).text
    stop = text[len(text) // 2 : len(text) // 2 + 2]
    answer = scene.describe(mask, options=Options(max_new_tokens=30, stop=(stop,)))
    assert answer.text == text[: text.index(stop)]
    assert answer.finish_reason == "stop"


def test_cancelling_before_and_while_answering(
    tiny_bundle: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    gar = Gar.load(tiny_bundle)
    slow(gar, monkeypatch, 0.02)
    scene = gar.open(picture)
    mask = rectangle(picture, 0.2, 0.2, 0.7, 0.8)
    cancel = threading.Event()
    stream = scene.stream(None, {1: mask}, options=Options(max_new_tokens=500, cancel=cancel))
    first = next(iter(stream))
    cancel.set()
    answer = stream.finish()
    assert answer.finish_reason == "cancelled"
    assert answer.text.startswith(first)
    assert len(answer.tokens) < 20
    untouched = scene.describe(mask, options=Options(cancel=cancel))
    assert (untouched.tokens, untouched.finish_reason) == ((), "cancelled")


def test_a_closed_stream_keeps_what_there_was(tiny_bundle: Path, picture: np.ndarray) -> None:
    scene = Gar.load(tiny_bundle).open(picture)
    stream = scene.stream(None, {1: rectangle(picture, 0.2, 0.2, 0.7, 0.8)}, options=Options(max_new_tokens=500))
    first = next(iter(stream))
    stream.close()
    answer = stream.finish()
    assert (answer.text, answer.finish_reason) == (first, "cancelled")


def test_a_stream_closed_before_it_began_is_an_empty_answer(tiny_bundle: Path, picture: np.ndarray) -> None:
    stream = Gar.load(tiny_bundle).open(picture).stream(None, {1: rectangle(picture, 0, 0, 1, 1)})
    stream.close()
    answer = stream.finish()
    assert (answer.text, answer.tokens, answer.finish_reason) == ("", (), "cancelled")


def test_a_failure_is_raised_again_not_answered(
    tiny_bundle: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise GarBackendError("engine on fire")

    gar = Gar.load(tiny_bundle)
    with monkeypatch.context() as patch:
        patch.setattr(gar.pipeline.decoder.session, "bind", broken)
        stream = gar.open(picture).stream(None, {1: rectangle(picture, 0, 0, 1, 1)})
        for _ in range(2):
            with pytest.raises(GarBackendError, match="engine on fire"):
                stream.finish()
        with pytest.raises(GarBackendError, match="engine on fire"):
            list(stream)
    assert gar.open(picture).describe(rectangle(picture, 0, 0, 1, 1), options=Options(max_new_tokens=3)).tokens


def test_cancelling_is_noticed_between_batches_of_tiles(
    tiny_bundle: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gar_edge.runtime.model.vision.TILES_AT_ONCE", 1)
    gar, cancel, encoded = Gar.load(tiny_bundle), threading.Event(), []
    bind = gar.pipeline.vision._encoder.bind

    def cancelling(*buffers: Any) -> Any:
        encoded.append(1)
        cancel.set()
        return bind(*buffers)

    monkeypatch.setattr(gar.pipeline.vision._encoder, "bind", cancelling)
    answer = gar.open(picture).describe(rectangle(picture, 0, 0, 1, 1), options=Options(cancel=cancel))
    assert (answer.finish_reason, len(encoded)) == ("cancelled", 1)


def test_tiles_beyond_the_context_are_refused_at_once(tiny_bundle: Path, picture: np.ndarray) -> None:
    with pytest.raises(GarPromptError, match="at most 254 fit"):
        Gar.load(tiny_bundle).open(picture, max_tiles=10**9)


@pytest.mark.parametrize("masks", [[np.ones((2, 2), bool)], {"0": np.ones((2, 2), bool)}])
def test_masks_must_be_numbered(tiny_bundle: Path, picture: np.ndarray, masks: Any) -> None:
    with pytest.raises(GarPromptError, match="mapping of region numbers"):
        Gar.load(tiny_bundle).open(picture).ask("<Prompt0>", masks)


def test_opening_a_picture_counts_for_its_first_answer_only(tiny_bundle: Path, picture: np.ndarray) -> None:
    scene = Gar.load(tiny_bundle).open(picture.repeat(8, axis=0).repeat(8, axis=1))
    mask, options = np.ones((720, 1040), bool), Options(max_new_tokens=1)
    first, second = (scene.describe(mask, options=options).timings_ms for _ in range(2))
    assert first.preprocess > second.preprocess  # both cut the mask, the first the picture, too


def test_threads_share_a_model(tiny_bundle: Path, picture: np.ndarray) -> None:
    gar = Gar.load(tiny_bundle)
    masks = [rectangle(picture, 0.1 * k, 0.1, 0.1 * k + 0.3, 0.9) for k in range(4)]
    options = Options(max_new_tokens=10)
    alone = [answer.tokens for answer in gar.open(picture).describe_all(masks, options=options)]
    together: dict[int, tuple[int, ...]] = {}

    def work(k: int) -> None:
        together[k] = gar.open(picture).describe(masks[k], options=options).tokens

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[k] for k in range(4)] == alone


def test_an_empty_mask_names_its_region(tiny_bundle: Path, picture: np.ndarray) -> None:
    scene = Gar.load(tiny_bundle).open(picture)
    full = rectangle(picture, 0, 0, 1, 1)
    with pytest.raises(GarMaskError, match="region 2: mask is empty"):
        scene.ask("<Prompt1> <Prompt2>", {1: full, 2: np.zeros_like(full)})


def test_a_mask_of_another_size_is_resized_with_a_warning(tiny_bundle: Path, picture: np.ndarray) -> None:
    scene = Gar.load(tiny_bundle).open(picture)
    mask = rectangle(picture, 0.2, 0.2, 0.8, 0.8)
    twice = mask.repeat(2, axis=0).repeat(2, axis=1)
    options = Options(max_new_tokens=5)
    with pytest.warns(UserWarning, match="region 1: mask is 260x180, the image 130x90"):
        answer = scene.describe(twice, options=options)
    assert answer.tokens == scene.describe(mask, options=options).tokens
