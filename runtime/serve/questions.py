"""From a request's words to requests of the scheduler: in worker threads, for pictures and masks take their time."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from PIL import Image

from gar_edge.runtime.errors import GarMaskError, GarPromptError
from gar_edge.runtime.files.fields import Field
from gar_edge.runtime.generate.answer import Answer
from gar_edge.runtime.generate.options import Options
from gar_edge.runtime.generate.prompt import Turn
from gar_edge.runtime.generate.side_by_side import Asked
from gar_edge.runtime.images.shape import Mask, pixel_box
from gar_edge.runtime.regions.cues import Points
from gar_edge.runtime.regions.files import entry_regions
from gar_edge.runtime.regions.find import find_mask
from gar_edge.runtime.regions.kinds import RegionLike
from gar_edge.runtime.regions.rle import Runs
from gar_edge.runtime.scene import Scene
from gar_edge.runtime.serve.api_errors import ApiError
from gar_edge.runtime.serve.bodies import HowToAnswer
from gar_edge.runtime.serve.limits import Limits
from gar_edge.runtime.serve.patience import Patience
from gar_edge.runtime.serve.pictures import MaskUrls


@dataclass(frozen=True)
class Wish:
    """A question about regions, which are JSON in this project's form; None: the description of one. turns: what
    followed it.
    """

    question: str | None
    regions: Any
    turns: Sequence[Turn] = ()


@dataclass(frozen=True)
class Prepared:
    """Requests ready for the scheduler, and the boxes of each one's regions."""

    asked: list[Asked] = field(default_factory=list)
    boxes: list[dict[str, list[int]]] = field(default_factory=list)

    def to_json(self, index: int, answer: Answer) -> dict[str, Any]:
        """An answer as it is told."""
        return {"index": index, **answer.to_json(), "boxes": self.boxes[index]}


def prepare(
    scene: Scene, wishes: Sequence[Wish], options: Options, limits: Limits, patience: Patience, *, described: int
) -> Prepared:
    """Requests for all questions; `GarError` for the first that cannot be asked, before any is.

    described: the number, in the prompt, of a region that is to be described and has none of its own.
    """
    prepared = Prepared()
    for wish in wishes:
        patience.check()
        check_words(wish, limits)
        regions = read_regions(scene, wish.regions, limits)
        names = {number: number for number in regions}
        if wish.question is None and not wish.turns and list(regions) == [0]:
            names, regions = {described: 0}, {described: regions[0]}
        asked = scene.prepare(wish.question, regions, turns=wish.turns, options=options)
        prepared.asked.append(asked)
        prepared.boxes.append(_boxes(asked, names, scene))
    return prepared


def options_of(how: HowToAnswer, limits: Limits) -> Options:
    """Options of answers, within the server's limits; `GarPromptError` for those that do not fit together."""
    return Options(
        max_new_tokens=min(how.max_new_tokens or limits.tokens, limits.tokens),
        temperature=how.temperature,
        top_p=how.top_p,
        top_k=how.top_k,
        seed=how.seed,
        stop=(how.stop,) if isinstance(how.stop, str) else tuple(how.stop),
        seconds=min(how.seconds or limits.seconds, limits.seconds),
        speculate=how.speculate,
        live=how.live,
        schema=how.structure,
        regex=how.regex,
        choices=tuple(how.one_of),
        grammar=how.grammar,
        logprobs=how.logprobs,
    )


def split(regions: Any) -> list[Any]:
    """Regions given together, each for itself, in their order."""
    if isinstance(regions, Mapping) and "regions" in regions:
        regions = regions["regions"]
    if isinstance(regions, Mapping) and regions and all(str(key).isascii() and str(key).isdigit() for key in regions):
        return list(regions.values())
    if isinstance(regions, Mapping) and isinstance(regions.get("mask_rles"), list):
        return list(regions["mask_rles"])
    return list(regions) if isinstance(regions, list) else [regions]


def check_words(wish: Wish, limits: Limits) -> None:
    """`GarPromptError` for texts that are longer than any question or conversation: they would be tokenised first."""
    questions = [wish.question or "", *(turn.question for turn in wish.turns)]
    if (longest := max(map(len, questions))) > limits.question:
        raise GarPromptError(f"a question of {longest} characters; at most {limits.question} are taken")
    total = sum(map(len, questions)) + sum(len(turn.answer) for turn in wish.turns)
    if total > limits.conversation:
        raise GarPromptError(f"a conversation of {total} characters; at most {limits.conversation} are taken")


def read_masks(scene: Scene, regions: Any, limits: Limits, patience: Patience) -> dict[int, Mask]:
    """Masks by number; errors as of `read_regions`."""
    masks = {}
    for number, region in read_regions(scene, regions, limits).items():
        patience.check()
        masks[number] = find_mask(region, scene.image, name=f"region {number}", turn=scene.turn)
    return masks


def read_regions(scene: Scene, regions: Any, limits: Limits) -> dict[int, RegionLike]:
    """Regions by number, in their order; `GarMaskError` for what is no region, `ApiError` for too much."""
    if regions is None or regions in ([], {}):
        raise GarMaskError('no region is given; mark at least one, e.g. [{"box": [10, 10, 60, 60]}]')
    count = len(split(regions))
    if count > limits.regions:
        raise ApiError(400, f"{count} regions in one request, over {limits.regions}; ask in parts", param="regions")
    height, width = scene.image.shape[:2]
    urls = MaskUrls(limits)
    found = entry_regions(Field("the request", {"regions": regions}), urls)
    pixels = count * width * height + urls.pixels
    for number, region in found.items():
        if isinstance(region, Runs):
            pixels += region.width * region.height
        elif isinstance(region, Points) and len(region.inside) + len(region.outside) > limits.points:
            raise ApiError(400, f"region {number} has over {limits.points} points; give a mask", param="regions")
    if pixels > limits.mask_pixels:
        raise ApiError(
            400,
            f"{count} regions of a picture of {width}x{height} are too many pixels at once, masks too; ask about fewer",
            param="regions",
        )
    return found


def outlined(masks: Mapping[int, Mask]) -> dict[str, dict[str, Any]]:
    """What regions turned out to be: extent, area and mask of each."""
    return {
        str(number): {"box": pixel_box(mask), "area": int(mask.sum()), "mask": _png(mask)}
        for number, mask in masks.items()
    }


def _boxes(asked: Asked, names: Mapping[int, int], scene: Scene) -> dict[str, list[int]]:
    """left, upper, right, lower in pixels of a request's regions. names: numbers in the prompt to the client's."""
    height, width = scene.image.shape[:2]
    regions = asked.request.regions
    return {
        str(names[number]): [round(x1 * width), round(y1 * height), round(x2 * width) + 1, round(y2 * height) + 1]
        for number, (x1, y1, x2, y2) in zip(regions.numbers, regions.boxes, strict=True)
    }


def _png(mask: Mask) -> str:
    stream = BytesIO()
    Image.fromarray(mask).save(stream, "PNG")  # one bit a pixel
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
