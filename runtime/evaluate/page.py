"""A page of what went wrong: pictures with their regions, questions, answers, and what would have been right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gar_edge.runtime.errors import GarError
from gar_edge.runtime.evaluate.task import Item
from gar_edge.runtime.files.addresses import beside
from gar_edge.runtime.images.loading import load_picture
from gar_edge.runtime.jobs.question import read_question
from gar_edge.runtime.regions import box_mask
from gar_edge.runtime.regions.files import entry_regions, in_folder
from gar_edge.runtime.regions.find import find_mask
from gar_edge.runtime.timeline.page import DESCRIBE, Figure, encoded, write_figures

MOST = 60  # pictures on a page; it stays a few megabytes


@dataclass(frozen=True)
class Case:
    """An item to show, with texts by label, such as the answer and the right one."""

    item: Item
    said: Mapping[str, str]


def write_page(path: Path, title: str, summary: str, cases: Sequence[Case], data: Path) -> None:
    """Write the page, of the first 60 cases; a picture that is missing leaves its place to a line that says so."""
    figures = [_figure(case, data) for case in cases[:MOST]]
    if len(cases) > MOST:
        summary += f" The first {MOST} of {len(cases)} are shown."
    write_figures(path, title, summary, figures)


def _figure(case: Case, data: Path) -> Figure:
    item, field = case.item, case.item.job.field
    if isinstance(field, GarError):
        return Figure(item.image, item.kind, "", case.said, None, str(field))
    question = read_question(field) or DESCRIBE
    try:
        picture = load_picture(beside(data, item.image))
        regions = entry_regions(field, in_folder(data)).items()
        masks = {
            number: find_mask(region, picture.pixels, box_mask, f"region {number}", turn=picture.turn)
            for number, region in regions
        }
    except GarError as error:
        return Figure(item.image, item.kind, question, case.said, None, str(error))
    return Figure(item.image, item.kind, question, case.said, encoded(picture.pixels, masks))
