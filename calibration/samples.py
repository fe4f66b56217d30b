"""Pictures with regions and questions about them, to calibrate quantisation on."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gar_edge.calibration.annotations import REMEDY, Entry, draw_regions, read_folder
from gar_edge.runtime.errors import GarCalibrationError, GarError
from gar_edge.runtime.images.loading import load_image
from gar_edge.runtime.images.shape import Mask, fit_mask
from gar_edge.runtime.regions.kinds import Marked

Rng = np.random.Generator

DESCRIBED = 1  # the released demo describes its region as <Prompt1>

# Those of scikit-image's wheel that its documentation states to be free: CC0, public domain, or without restrictions.
PHOTOGRAPHS = (
    "astronaut.png",
    "coffee.png",
    "rocket.jpg",
    "coins.png",
    "chelsea.png",
    "camera.png",
    "retina.jpg",
    "brick.png",
)

# name -> (left, upper, right, lower) as shares of the sides, mirrored. Parts of other shapes make other grids of tiles.
VIEWS: Mapping[str, tuple[tuple[float, float, float, float], bool]] = {
    "": ((0.0, 0.0, 1.0, 1.0), False),
    " (upper part)": ((0.0, 0.0, 1.0, 0.55), True),
    " (middle, upright)": ((0.3, 0.0, 0.72, 1.0), False),
    " (right part)": ((0.3, 0.1, 1.0, 1.0), True),
    " (lower left)": ((0.0, 0.4, 0.75, 1.0), False),
}

FORMATS = ((1, False), (2, True), (1, True), (3, True))  # (regions, asked rather than described), in turn
QUESTIONS: Mapping[int, tuple[str, ...]] = {
    1: (
        "What is {0} made of?",
        "What colour is {0}?",
        "What is {0} used for?",
        "What is {0}, and what state is it in?",
        "Could a person lift {0} with one hand?",
        "What material is {0}?\nA. Wood\nB. Metal\nC. Fabric\nD. Something else\nAnswer with the letter.",
    ),
    2: (
        "Which is nearer to the camera, {0} or {1}?",
        "What is the spatial relationship between {0} and {1}?",
        "Is {0} to the left or to the right of {1}?",
        "Do {0} and {1} belong to the same object?",
        "How does the texture of {0} differ from that of {1}?",
        "Where is {0} located relative to {1}?",
    ),
    3: (
        "Which is furthest from the camera: {0}, {1} or {2}?",
        "How do {0}, {1} and {2} relate to each other?",
        "Which one does not go with the others: {0}, {1} or {2}?",
        "Describe {0}, {1} and {2} in one sentence each.",
    ),
}
MANY = "How do {names} and {last} relate to each other?"

# Segments (Felzenszwalb and Huttenlocher 2004)
SEGMENTED = 256  # longest side on which they are looked for, pixels
COARSENESS, BLUR = 200, 0.8
AREA = (0.008, 0.4)  # of a region, shares of the picture
EXTENT = 0.35  # least share of its box that a region fills
EDGES = 2  # most of the picture's four edges that a region touches

_PROMPT = re.compile(r"<Prompt\d+>")


@dataclass(frozen=True)
class Sample:
    """A picture with regions and what is asked about them; `question` None describes the one region.

    name: for messages. image: RGB [H,W,3]. masks: prompt number -> [H,W].
    """

    name: str
    image: NDArray[np.uint8]
    masks: Mapping[int, Mask]
    question: str | None


@dataclass(frozen=True)
class Skipped:
    """A sample that cannot be used, and why."""

    name: str
    why: str

    def __str__(self) -> str:
        return " ".join(f"{self.name}: {self.why}".split())


@dataclass
class SampleSet:
    """At most `count` samples, made one at a time: the same ones in the same order on each iteration.

    description: which set, in one line. builtin: whether it comes with the packages. draw: starts a pass over all
    there are. skipped: "name: why" of those left out; grows while iterating. Iterating raises `GarCalibrationError`
    where not one sample can be used.
    """

    description: str
    builtin: bool
    draw: Callable[[], Iterator[Sample | Skipped]]
    count: int | None = None
    skipped: list[str] = field(default_factory=list)
    _noted: set[str] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise GarCalibrationError(f"{self.count} calibration samples asked for; one is the least")

    def __iter__(self) -> Iterator[Sample]:
        given = 0
        for drawn in self.draw():
            if isinstance(drawn, Sample):
                yield drawn
                given += 1
                if given == self.count:
                    return
            elif (note := str(drawn)) not in self._noted:
                self._noted.add(note)
                self.skipped.append(note)
        if not given:
            reasons = "; ".join(self.skipped[:3]) + "; …" * (len(self.skipped) > 3)
            raise GarCalibrationError(f"{self.description}: no sample can be used ({reasons}); correct or replace them")


def photographs(count: int | None, prompts: int, seed: int = 0) -> SampleSet:
    """The default set: scikit-image's photographs, whole and in parts, with one to three segments as regions.

    prompts: how many regions the model can name. `GarCalibrationError` where scikit-image is missing.
    """
    try:
        import skimage
    except ImportError:
        raise GarCalibrationError(
            "scikit-image, whose photographs calibrate by default, is not installed; pip install 'gar-edge[export]'"
        ) from None
    folder = Path(skimage.__file__).parent / "data"
    whole = count is not None and count <= len(PHOTOGRAPHS)
    description = (
        f"{count if whole else len(PHOTOGRAPHS)} photographs that come with scikit-image"
        f"{'' if whole else ', whole and in parts'}, regions by segmentation"
    )
    return SampleSet(description, True, lambda: _photographs(folder, prompts, seed), count)


def drawn_scenes(count: int, seed: int) -> SampleSet:
    """gar-nano's drawn scenes, each with a description and questions about one, two and three regions.

    The evaluation draws its scenes from a seed, too: give another one.
    """
    return SampleSet(f"gar-nano's drawn scenes from seed {seed}", True, lambda: _scenes(seed), count)


def folder(path: Path, count: int | None, prompts: int, seed: int = 0) -> SampleSet:
    """A folder of pictures with regions.json, COCO annotations or mask images; see `annotations.read_folder`.

    Of more than `count` samples, a random choice from as many pictures as possible. Entries without a question are
    described or asked general questions, one to three regions at a time. `GarCalibrationError` where the folder holds
    nothing of the kind.
    """
    found = read_folder(path)
    if not any(entry.regions for entry in found.entries):
        raise GarCalibrationError(f"{path}: {found.kind} marks no regions; {REMEDY}")
    drafts = _drafts(np.random.default_rng((seed, 0)), found.entries, prompts)
    if count is not None and len(drafts) > count:
        drafts = _spread(np.random.default_rng((seed, 1)), drafts)
    made = SampleSet(f"{path}: {found.kind}", False, lambda: (_made(draft, prompts) for draft in drafts), count)
    made.skipped.extend(found.skipped)
    return made


@dataclass(frozen=True)
class _Draft:
    """What a sample of a folder is to be made of."""

    entry: Entry
    regions: Mapping[int, Marked]
    question: str | None


def _drafts(rng: Rng, entries: Sequence[Entry], prompts: int) -> list[_Draft]:
    drafts: list[_Draft] = []
    formats = list(FORMATS)
    for entry in entries:
        too_many = entry.together and len(entry.regions) > prompts
        if entry.question is not None or too_many or not entry.regions:
            drafts.append(_Draft(entry, dict(enumerate(entry.regions)), entry.question))
            continue
        regions = [entry.regions[i] for i in rng.permutation(len(entry.regions))]
        while regions:
            count, asked = len(regions), True
            if count == 1 or not entry.together:
                count, asked = _next_format(formats, min(count, prompts))
            numbers, question = _asked(rng, count, asked, prompts)
            drafts.append(_Draft(entry, dict(zip(numbers, regions[:count], strict=True)), question))
            regions = regions[count:]
    return drafts


def _next_format(formats: list[tuple[int, bool]], most: int) -> tuple[int, bool]:
    """The format of at most `most` regions that was taken longest ago; it goes to the end of `formats`."""
    found = next(chosen for chosen in formats if chosen[0] <= most)
    formats.remove(found)
    formats.append(found)
    return found


def _spread(rng: Rng, drafts: Sequence[_Draft]) -> list[_Draft]:
    """All, shuffled, but every picture once before any picture twice."""
    seen: Counter[str] = Counter()
    rounds: list[tuple[int, _Draft]] = []
    for index in rng.permutation(len(drafts)):
        draft = drafts[index]
        rounds.append((seen[draft.entry.name], draft))
        seen[draft.entry.name] += 1
    return [draft for _, draft in sorted(rounds, key=lambda item: item[0])]


def _made(draft: _Draft, prompts: int) -> Sample | Skipped:
    name = draft.entry.name
    why = _misfit(draft, prompts)
    if why is not None:
        return Skipped(name, why)
    try:
        picture = draft.entry.image()
        masks = draw_regions(name, picture, draft.regions)
    except GarError as error:
        why = str(error)
        for folder in draft.entry.folders:
            why = why.replace(f"{folder}{os.sep}", "")
        return Skipped(name, why)
    empty = [f"<Prompt{number}>" for number, mask in masks.items() if not mask.any()]
    if empty:
        return Skipped(name, f"the mask of {' and '.join(empty)} marks no pixel")
    return Sample(name, picture.pixels, masks, draft.question)


def _misfit(draft: _Draft, prompts: int) -> str | None:
    """Why regions, question and model do not go together."""
    if not draft.regions:
        return "no region is marked in it"
    if len(draft.regions) > prompts:
        return f"{len(draft.regions)} regions, the model takes at most {prompts}"
    if draft.question is None:
        return None
    given, named = {f"<Prompt{number}>" for number in draft.regions}, set(_PROMPT.findall(draft.question))
    if named - given:
        return f"the question names {' and '.join(sorted(named - given))}, which has no mask"
    if given - named:
        return f"the question does not name {' and '.join(sorted(given - named))}, which has a mask"
    return None


def _asked(rng: Rng, count: int, asked: bool, prompts: int) -> tuple[list[int], str | None]:
    """Prompt numbers for `count` regions, and a question that names them; no question describes the one region."""
    if count == 1 and not asked:
        return [min(DESCRIBED, prompts - 1)], None
    numbers = list(range(count)) if rng.random() < 0.5 else sorted(int(n) for n in rng.permutation(prompts)[:count])
    names = [f"<Prompt{numbers[i]}>" for i in rng.permutation(count)]
    if count not in QUESTIONS:
        return numbers, MANY.format(names=", ".join(names[:-1]), last=names[-1])
    return numbers, QUESTIONS[count][int(rng.integers(len(QUESTIONS[count])))].format(*names)


def _photographs(folder: Path, prompts: int, seed: int) -> Iterator[Sample | Skipped]:
    for turn, (view, (box, mirrored)) in enumerate(VIEWS.items()):
        for index, file in enumerate(PHOTOGRAPHS):
            name = Path(file).stem + view
            rng = np.random.default_rng((seed, turn, index))
            try:
                image = _part(load_image(folder / file), box, mirrored)
            except GarError as error:
                yield Skipped(name, str(error))
                continue
            wanted, asked = FORMATS[(turn + index) % len(FORMATS)]
            chosen = _segments(rng, image, min(wanted, prompts))
            if not chosen:
                yield Skipped(name, "no segment of a fit size")
                continue
            numbers, question = _asked(rng, len(chosen), asked, prompts)
            yield Sample(name, image, dict(zip(numbers, chosen, strict=True)), question)


def _part(image: NDArray[np.uint8], box: tuple[float, float, float, float], mirrored: bool) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    left, right = (round(share * width) for share in box[::2])
    upper, lower = (round(share * height) for share in box[1::2])
    part = image[upper:lower, left:right]
    return np.ascontiguousarray(part[:, ::-1] if mirrored else part)


def _segments(rng: Rng, image: NDArray[np.uint8], most: int) -> list[Mask]:
    """Up to `most` disjoint, connected regions [H,W] of one appearance each, rather those that no edge cuts off."""
    from skimage.segmentation import felzenszwalb

    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    picture.thumbnail((SEGMENTED, SEGMENTED), Image.Resampling.BOX)
    least = round(AREA[0] * picture.width * picture.height)
    labels = felzenszwalb(np.asarray(picture), scale=COARSENESS, sigma=BLUR, min_size=least)
    masks = [labels == label for label in rng.permutation(int(labels.max()) + 1)]
    objects = sorted((mask for mask in masks if _is_object(mask)), key=lambda mask: _edges(mask) > 0)
    return [fit_mask(mask, width, height) for mask in objects[:most]]


def _is_object(mask: Mask) -> bool:
    """Whether a segment is neither speck nor background nor a mere rim."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (int(np.ptp(rows)) + 1) * (int(np.ptp(columns)) + 1)
    return bool(AREA[0] <= mask.mean() <= AREA[1] and mask.sum() >= EXTENT * box and _edges(mask) <= EDGES)


def _edges(mask: Mask) -> int:
    """How many of the picture's four edges it touches."""
    return sum(bool(edge.any()) for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))


def _scenes(seed: int) -> Iterator[Sample]:
    from gar_edge.models.nano import exam

    for index in itertools.count():
        rng = np.random.default_rng((seed, index, 1))
        kinds: dict[tuple[int, bool], list[exam.Question]] = {}
        for question in exam.scene(seed, index):
            kinds.setdefault((len(question.masks), question.turn.question is None), []).append(question)
        for alike in kinds.values():
            chosen = alike[int(rng.integers(len(alike)))]
            yield Sample(f"scene {index}", chosen.scene.image, chosen.masks, chosen.turn.question)
