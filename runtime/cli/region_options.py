"""Regions of the command line: `[K=]…` arguments to numbered regions, and those to masks of the picture.

Numbers: K= says which `<PromptK>` a region is. Those without take the lowest that are free, in the order in which they
are given, which is kept; of several options the order is not known, so that all but one must carry their numbers. All
points without a number are one region. A box and points of the same number are one region too.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.images.shape import Mask, Turn
from gar_edge.runtime.recordings.recording import TopicMasks
from gar_edge.runtime.regions.cues import Box, Points, Scribble
from gar_edge.runtime.regions.files import read_region_of, read_regions
from gar_edge.runtime.regions.find import Segmenter, box_mask, find_mask
from gar_edge.runtime.regions.kinds import RegionLike
from gar_edge.runtime.regions.labels import MaskFile, from_labels
from gar_edge.runtime.regions.segmenters.grabcut import grabcut
from gar_edge.runtime.video.frame_masks import FrameMasks

_NUMBERED = re.compile(r"(\d{1,9})=(.+)", re.DOTALL)
_LABELLED = re.compile(r"(.+)#(\d{1,18})")
_WHOLE = re.compile(r"[+-]?\d{1,9}")
_NUMBER = re.compile(r"[+-]?(\d{1,9}(\.\d*)?|\.\d+)")
_BOX, _POINT, _NOT_POINT = "--box", "--point", "--not-point"


@dataclass(frozen=True)
class RegionArguments:
    """What the options say, as typed."""

    mask: Sequence[str] = ()
    box: Sequence[str] = ()
    point: Sequence[str] = ()
    not_point: Sequence[str] = ()
    scribble: Sequence[str] = ()
    regions: Sequence[str] = ()
    masks: Sequence[str] = ()
    recorded: bool = False  # masks are topics of a recording, no folders

    def __bool__(self) -> bool:
        return any((self.mask, self.box, self.point, self.not_point, self.scribble, self.regions, self.masks))


@dataclass(frozen=True)
class Given:
    """A region, and the option that gave it."""

    option: str
    region: RegionLike | TopicMasks


Regions = Mapping[int | None, Given]


def read_arguments(arguments: RegionArguments, image: str, described: bool) -> Regions:
    """The regions by number; a single one that is `described` and has no number gets None, for the bundle knows it.

    image: the picture's path, by which files of regions find its entry. `typer.BadParameter` for arguments that are
    wrong in themselves, `GarMaskError` for files.
    """
    listed = list(_all(arguments, image))
    numbered: set[int] = set()
    for number, given in listed:
        if number in numbered:
            raise typer.BadParameter(f"region {number} is given twice", param_hint=given.option)
        if number is not None:
            numbered.add(number)
    loose = [given for number, given in listed if number is None]
    kinds = sorted({given.option for given in loose})
    if len(kinds) > 1:
        raise typer.BadParameter(
            f"regions of {' and '.join(kinds)} together need their numbers, e.g. {kinds[0]} 0=… {kinds[1]} 1=…"
        )
    if described and len(loose) == 1 and not numbered:
        return {None: loose[0]}
    free = (number for number in itertools.count() if number not in numbered)
    return {next(free) if number is None else number: given for number, given in listed}


def cut_out(
    regions: Regions, image: NDArray[np.uint8], segment: Segmenter, turn: Turn | None = None
) -> dict[int | None, Mask]:
    """The regions' masks [H,W]; `typer.BadParameter` for boxes and points that do not lie in the picture."""
    masks = {}
    for number, given in regions.items():
        name = "region" if number is None else f"region {number}"
        try:
            masks[number] = find_mask(given.region, image, segment, name, turn=turn)
        except GarMaskError as error:
            if given.option in (_BOX, _POINT):
                raise typer.BadParameter(str(error), param_hint=given.option) from None
            raise
    return masks


def choose_segmenter(box_as_mask: bool, encoder: Path | None, decoder: Path | None, threads: int) -> Segmenter:
    """What turns boxes, points and scribbles into masks; `GarBackendError` where SAM's graphs cannot be had."""
    if (encoder is None) != (decoder is None):
        raise typer.BadParameter("--sam-encoder and --sam-decoder go together")
    if encoder is None or decoder is None:
        return box_mask if box_as_mask else grabcut
    if box_as_mask:
        raise typer.BadParameter("--box-as-mask leaves SAM nothing to do; drop one of them")
    from gar_edge.runtime.regions.segmenters.sam import Sam

    return Sam(encoder, decoder, threads)


def _all(arguments: RegionArguments, image: str) -> Iterator[tuple[int | None, Given]]:
    for number, text in _split(arguments.mask):
        yield number, Given("--mask", _mask(text))
    yield from _cues(arguments)
    for number, text in _split(arguments.scribble):
        yield number, Given("--scribble", Scribble(text))
    for first, text in _split(arguments.regions):
        path, chosen = _labelled(text)
        if chosen is not None:
            yield first, Given("--regions", _one_of(path, image, chosen))
            continue
        found = read_regions(path, image) if _is_json(path) else dict(enumerate(from_labels(path).values()))
        for number, region in found.items():
            loose = first is None and list(found) == [0]
            yield None if loose else number + (first or 0), Given("--regions", region)
    for number, text in _split(arguments.masks):
        path, label = _labelled(text)
        marked = TopicMasks(path.as_posix(), label) if arguments.recorded else FrameMasks.of(path, label)
        yield number, Given("--masks", marked)


def _cues(arguments: RegionArguments) -> Iterator[tuple[int | None, Given]]:
    """Boxes and points; those of one number together."""
    points: dict[int | None, tuple[list[tuple[float, ...]], list[tuple[float, ...]]]] = {}
    for place, (option, texts) in enumerate(((_POINT, arguments.point), (_NOT_POINT, arguments.not_point))):
        for number, text in _split(texts):
            points.setdefault(number, ([], []))[place].append(_coordinates(option, text, "x,y"))
    for number, text in _split(arguments.box):
        corners = _coordinates(_BOX, text, "left,upper,right,lower")
        try:
            box = Box(corners[0], corners[1], corners[2], corners[3])
        except GarMaskError as error:
            raise typer.BadParameter(str(error), param_hint=_BOX) from None
        marked = points.pop(number, None) if number is not None else None
        yield number, Given(_BOX, _pointed(*marked, box) if marked else box)
    for number, (inside, outside) in points.items():
        yield number, Given(_POINT, _pointed(inside, outside, None))


def _pointed(inside: list[tuple[float, ...]], outside: list[tuple[float, ...]], box: Box | None) -> Points:
    try:
        return Points([(x, y) for x, y in inside], [(x, y) for x, y in outside], box)
    except GarMaskError as error:
        raise typer.BadParameter(str(error), param_hint=_POINT) from None


def _one_of(path: Path, image: str, chosen: int) -> RegionLike:
    """One region of a JSON file, or one instance of a label image."""
    return read_region_of(path, image, chosen) if _is_json(path) else MaskFile(path, chosen)


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json"


def _mask(text: str) -> RegionLike:
    """A mask file, or one instance of a label image."""
    path, label = _labelled(text)
    return text if label is None else MaskFile(path, label)


def _labelled(text: str) -> tuple[Path, int | None]:
    """PATH#LABEL as path and label, unless a path is called so."""
    match = _LABELLED.fullmatch(text)
    return (Path(match[1]), int(match[2])) if match and not Path(text).exists() else (Path(text), None)


def _split(texts: Iterable[str]) -> Iterator[tuple[int | None, str]]:
    """`[K=]…` as number and rest."""
    for text in texts:
        match = _NUMBERED.fullmatch(text)
        yield (int(match[1]), match[2]) if match else (None, text)


def _coordinates(option: str, text: str, form: str) -> tuple[float, ...]:
    """Numbers with commas between them: int where written without a decimal point, else float."""
    parts = text.split(",")
    if len(parts) != len(form.split(",")) or not all(_NUMBER.fullmatch(part.strip()) for part in parts):
        raise typer.BadParameter(
            f"{text!r} is not [K=]{form} in pixels, or in fractions such as 0.25", param_hint=option
        )
    return tuple(int(part) if _WHOLE.fullmatch(part.strip()) else float(part) for part in parts)
