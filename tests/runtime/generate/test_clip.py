"""Clips: tokens against torch, from the facts of the released path; what sliding spares; what is refused."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import reference
from helpers.reference_gar import SYSTEM, Reference, resize
from helpers.spoilt import edit_json
from helpers.video_files import square_frame, square_mask

from gar_edge.runtime import Clip, Followed, Gar, GarImageError, GarMaskError, GarPromptError, Options
from gar_edge.runtime.generate.clip_request import FrameRegions, clip_request

TIE = 1e-4  # closer calls of the reference's two best logits are nobody's to win
Seen = Sequence[np.ndarray | None]  # a region's mask in each frame
CASES = 20


class ByTheBook:
    """The released path: a tile a frame under its own mask, replayed out of its own map where its token stands.

    Texts and features are joined piece by piece, so that it knows nothing of placeholders and their places.
    """

    def __init__(self, model: Reference) -> None:
        self.model = model
        self.tile = model.checkpoint.config.vision.tile

    def words(self, text: str) -> torch.Tensor:
        ids = self.model.tokenizer.encode(text, add_special_tokens=False).ids
        return self.model.llama.get_input_embeddings()(torch.tensor(ids, dtype=torch.long))

    def frame(self, image: np.ndarray, masks: Mapping[int, np.ndarray]) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        """Features [P,C] of a frame, and of each of its regions."""
        height, width = image.shape[:2]
        painted = np.full((height, width, 1), 5, np.uint8)
        for number, mask in reversed(list(masks.items())):
            painted[mask] = number
        pixels = (resize(image, self.tile, self.tile)[None] / 255 - 0.5) / 0.5
        mask = (resize(painted, self.tile, self.tile).clamp(0, 5) != 5).float()
        features = reference.features(self.model.get, self.model.config, pixels, mask)
        scale = self.model.config.get("replay_spatial_scale", 1 / 28)
        replayed = {}
        for number, region in masks.items():
            y, x = np.nonzero(region)
            box = np.array([[x.min() / width, y.min() / height, x.max() / width, y.max() / height]], np.float32)
            both = np.concatenate([features.numpy()] * 2)  # the helper leaves the first tile out of its map
            replayed[number] = torch.from_numpy(reference.roi_align(both, (1, 1), box, scale)[0])
        return features[0], replayed

    def embedded(self, images: Sequence[np.ndarray], regions: Mapping[int, Seen], question: str | None) -> torch.Tensor:
        """A prompt's embeddings [S,C]."""
        shown = [
            {number: mask for number, seen in regions.items() if (mask := seen[index]) is not None and mask.any()}
            for index in range(len(images))
        ]
        frames = [self.frame(image, masks) for image, masks in zip(images, shown, strict=True)]
        parts = [self.words(SYSTEM + "<|start_header_id|>user<|end_header_id|>\n\n")]
        parts += [features for features, _ in frames]
        opening = "There are some objects I am curious about: "
        if question is None:
            (number,) = regions
            parts.append(self.words(f"{opening}<Prompt{number}>;\n<Prompt{number}>: "))
            parts += [replayed[number] for _, replayed in frames if number in replayed]
            ending = "Describe this masked region in detail."
        else:
            text = opening + "".join(f"<Prompt{number}>; " for number in regions) + "\n"
            for number in regions:
                parts.append(self.words(f"{text}<Prompt{number}>: "))
                parts += [replayed[number] for _, replayed in frames if number in replayed]
                text = "\n"
            ending = "\n\n" + question
        ending += "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        return torch.cat([*parts, self.words(ending)])

    def answer(
        self, images: Sequence[np.ndarray], regions: Mapping[int, Seen], question: str | None, count: int
    ) -> tuple[list[int], list[float], int]:
        """Greedy tokens, the margin of each, and the prompt's length."""
        embeds = self.embedded(images, regions, question)
        length, past = len(embeds), None
        tokens: list[int] = []
        margins: list[float] = []
        for _ in range(count):
            out = self.model.llama(inputs_embeds=embeds[None], past_key_values=past, use_cache=True, logits_to_keep=1)
            past = out.past_key_values
            (best, second), (token, _) = (x.tolist() for x in out.logits[0, -1].topk(2))
            tokens.append(token)
            margins.append(best - second)
            if token in self.model.checkpoint.stop_tokens:
                break
            embeds = self.model.llama.get_input_embeddings()(torch.tensor([token]))
        return tokens, margins, length


def random_case(index: int) -> tuple[list[np.ndarray], dict[int, list[np.ndarray | None]], str | None]:
    """Frames of noise, one to three regions of boxes that come and go, and a question about them, or none."""
    random = np.random.default_rng((21, index))
    count = int(random.integers(1, 9))
    height, width = (int(size) for size in random.integers(40, 240, 2))
    images = [random.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]
    numbers = [int(number) for number in random.permutation(5)[: random.integers(1, 4)]]
    regions: dict[int, list[np.ndarray | None]] = {}
    for number in numbers:
        seen: list[np.ndarray | None] = []
        for _ in range(count):
            mask = np.zeros((height, width), bool)
            y, x = int(random.integers(0, height - 8)), int(random.integers(0, width - 8))
            mask[y : y + int(random.integers(1, height)), x : x + int(random.integers(1, width))] = True
            seen.append([mask, None, np.zeros_like(mask)][int(random.choice(3, p=[0.7, 0.15, 0.15]))])
        if not any(mask is not None and mask.any() for mask in seen):
            seen[-1] = np.ones((height, width), bool) & (np.arange(width) < width // 2)
        regions[number] = seen
    if len(numbers) == 1 and random.random() < 0.4:
        return images, regions, None
    return images, regions, "What do " + ", ".join(f"<Prompt{number}>" for number in numbers) + " do?"


@pytest.mark.filterwarnings("ignore:.*is marked, with its whole border")
@pytest.mark.parametrize("index", range(CASES))
def test_tokens_are_those_of_the_released_path(gar: Gar, by_the_book: Reference, index: int) -> None:
    images, regions, question = random_case(index)
    with torch.inference_mode():
        tokens, margins, length = ByTheBook(by_the_book).answer(images, regions, question, 6)
    clip = gar.open_clip(images)
    options = Options(max_new_tokens=6)
    if question is None:
        ((number, seen),) = regions.items()
        answer = clip.describe(seen, number=number, options=options)
    else:
        answer = clip.ask(question, regions, options=options)
    assert answer.prompt_tokens == length
    certain = next((i for i, margin in enumerate(margins) if margin < TIE), len(tokens))
    assert certain, "a first token that is a tie says nothing"
    assert answer.tokens[:certain] == tuple(tokens[:certain])
    if certain == len(tokens):
        assert answer.tokens == tuple(tokens)


def moving(count: int, first: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Frames of a square that goes right, and its masks."""
    return [square_frame(first + i) for i in range(count)], [square_mask(first + i) for i in range(count)]


def test_a_clip_that_slides_by_one_frame_encodes_one_tile(nano: Gar) -> None:
    images, masks = moving(10)
    question, options = "What colour is <Prompt0>?", Options(max_new_tokens=4)
    clip = nano.open_clip(images[:8])
    first = clip.ask(question, {0: masks[:8]}, options=options)
    assert (first.reuse.tiles_encoded, first.reuse.tiles_reused) == (8, 0)
    for step in (1, 2):
        clip = clip.slide([images[7 + step]])
        slid = clip.ask(question, {0: masks[step : 8 + step]}, options=options)
        assert (slid.reuse.tiles_encoded, slid.reuse.tiles_reused) == (1, 7)
        fresh = nano.open_clip(images[step : 8 + step]).ask(question, {0: masks[step : 8 + step]}, options=options)
        assert slid.tokens == fresh.tokens
    assert clip.times == tuple(float(number) for number in range(2, 10))


def test_another_question_prefills_its_own_words_alone(nano: Gar) -> None:
    images, masks = moving(4)
    clip = nano.open_clip(images)
    clip.ask("What colour is <Prompt0>?", {0: masks}, options=Options(max_new_tokens=2))
    second = clip.ask("What shape is <Prompt0>?", {0: masks}, options=Options(max_new_tokens=2))
    assert second.reuse.tokens_reused > 4 * 2 * nano.manifest.dimensions.tile_tokens
    assert second.reuse.tokens_prefilled < 30
    fresh = nano.open_clip(images).ask("What shape is <Prompt0>?", {0: masks}, options=Options(max_new_tokens=2))
    assert second.tokens == fresh.tokens


def test_choices_and_streams_work_as_for_pictures(nano: Gar) -> None:
    images, masks = moving(3)
    clip = nano.open_clip(images, [0.0, 0.5, 1.0])
    choice = clip.choose("What colour is <Prompt0>?", {0: masks}, ["red", "green"])
    assert sum(choice.probabilities.values()) == pytest.approx(1)
    asked = clip.stream("What colour is <Prompt0>?", {0: masks}, options=Options(max_new_tokens=4))
    assert "".join(asked) == asked.finish().text


def test_a_region_is_followed_on_as_the_clip_slides(nano: Gar, monkeypatch: pytest.MonkeyPatch) -> None:
    images, masks = moving(12)
    followed = Followed(masks[0])
    seen: list[list[np.ndarray]] = []

    def note(pipeline: Any, clip: Any, numbers: Any, regions: Sequence[FrameRegions], *rest: Any) -> Any:
        seen.append([here[1].mask for here in regions])
        return clip_request(pipeline, clip, numbers, regions, *rest)

    monkeypatch.setattr("gar_edge.runtime.clip.clip_request", note)
    clip = nano.open_clip(images[:6])
    for step in range(0, 8, 2):
        clip = clip.slide(images[4 + step : 6 + step]) if step else clip
        clip.describe(followed, options=Options(max_new_tokens=1))
        for mask, truth in zip(seen[-1], masks[step : 6 + step], strict=True):
            assert (mask & truth).sum() / (mask | truth).sum() > 0.85
    assert len(seen) == 4


def test_what_a_clip_leaves_is_freed_with_it(nano: Gar) -> None:
    gc.collect()
    before = nano.scheduler.kept.bytes
    images, masks = moving(5)
    clip: Clip | None = nano.open_clip(images[:4])
    assert clip is not None
    clip.describe(masks[:4], options=Options(max_new_tokens=2))
    slid: Clip | None = clip.slide(images[4:])
    assert slid is not None
    slid.describe(masks[1:5], options=Options(max_new_tokens=2))
    assert nano.scheduler.kept.bytes > before
    clip = slid = None
    gc.collect()
    assert nano.scheduler.kept.bytes == before


def test_the_wording_is_the_manifests(own_bundle: Path, tmp_path: Path) -> None:
    """Corrected without code: here the frames' tokens of a region stand behind the question."""
    images, masks = moving(3)
    plain = Gar.load(own_bundle).open_clip(images).ask("Is <Prompt0>?", {0: masks}, options=Options(max_new_tokens=1))
    other = shutil.copytree(own_bundle, tmp_path / "other")

    def reword(manifest: dict[str, Any]) -> None:
        clip = manifest["prompt"]["clip"]
        clip["ask_format"] = "{{ question }} {% for region in regions %}{{ region.replay }}{% endfor %}"

    edit_json(other / "gar.json", reword)
    reworded = Gar.load(other).open_clip(images).ask("Is <Prompt0>?", {0: masks}, options=Options(max_new_tokens=1))
    assert reworded.prompt_tokens < plain.prompt_tokens
    edit_json(other / "gar.json", lambda manifest: manifest["prompt"]["clip"].update(ask_format="{{ question }}"))
    with pytest.raises(GarPromptError, match=r"prompt\.clip"):
        Gar.load(other).open_clip(images).ask("Is <Prompt0>?", {0: masks})
    edit_json(other / "gar.json", lambda manifest: manifest["prompt"]["clip"].update(ask_format="{% for %}"))
    with pytest.raises(GarPromptError, match="a format of the bundle's prompt cannot be used"):
        Gar.load(other)
    edit_json(other / "gar.json", lambda manifest: manifest["prompt"]["clip"].update(ask_format="{{ a.b.c }}"))
    with pytest.raises(GarPromptError, match="a format of the bundle's prompt cannot be used"):
        Gar.load(other).open_clip(images).ask("Is <Prompt0>?", {0: masks})


def test_frames_have_the_reserved_tokens_from_regions_0_on(own_bundle: Path) -> None:
    prompt = json.loads((own_bundle / "gar.json").read_text())["prompt"]
    assert prompt["clip"]["frame_texts"] == [f"<|reserved_special_token_{2 + frame}|>" for frame in range(5)]
    assert prompt["clip"]["frame_tokens"] == prompt["replay_tokens"]  # of this tokenizer, which has no others


@pytest.mark.parametrize(
    ("frames", "times", "part"),
    [
        ([], None, "at least one frame"),
        ([square_frame(0), square_frame(1)], [0.0], "2 frames have 1 times"),
        ([square_frame(0), square_frame(1)], [1.0, 1.0], "must rise, and 1 s comes behind 1 s"),
        ([square_frame(0)], [float("nan")], "numbers of seconds"),
        ([square_frame(0), square_frame(1)[:50]], None, "frame 1 is 160x50, the first 160x120"),
        ([square_frame(0), square_frame(1).astype(np.float32)], None, "must be uint8"),
    ],
)
def test_frames_that_make_no_clip(nano: Gar, frames: list[np.ndarray], times: list[float] | None, part: str) -> None:
    with pytest.raises(GarImageError, match=part):
        nano.open_clip(frames, times)


@pytest.mark.parametrize(
    ("region", "part"),
    [
        ([square_mask(0)], "region 0: 1 masks for 3 frames"),
        (square_mask(0), r"\[frames, height, width\], not \[120, 160\]"),
        ("mask.png", "a list with a mask for each frame"),
        ([None, None, None], "none of the clip's frames shows it"),
        ([np.zeros((120, 160), bool)] * 3, "none of the clip's frames shows it"),
        ([None, square_mask(1), np.ones((90, 90), bool)], "region 0 in frame 2: mask is 90x90"),
    ],
)
def test_regions_that_are_none_of_a_clip(nano: Gar, region: Any, part: str) -> None:
    with pytest.raises(GarMaskError, match=part):
        nano.open_clip(moving(3)[0]).ask("What is <Prompt0>?", {0: region})


def test_more_frames_than_the_context_holds_are_refused(nano: Gar) -> None:
    images, masks = moving(40)
    with pytest.raises(GarPromptError, match="take fewer frames"):
        nano.open_clip(images).describe(masks)


def test_a_follower_of_other_frames_is_refused(nano: Gar) -> None:
    images, masks = moving(3)
    followed = Followed(masks[0])
    nano.open_clip(images).describe(followed, options=Options(max_new_tokens=1))
    with pytest.raises(GarMaskError, match="of other frames"):
        nano.open_clip(images).describe(followed)
