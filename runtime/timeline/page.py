"""Pages of pictures with their regions, and what was asked and answered about them: one file, no server, no script."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jinja2 import Environment
from numpy.typing import NDArray

from gar_edge.runtime.errors import GarImageError
from gar_edge.runtime.files.atomic import write_whole
from gar_edge.runtime.images.shape import Mask
from gar_edge.runtime.regions.overlay import draw_regions
from gar_edge.runtime.timeline.entry import Entry, Moment

WIDTH = 640
MOST = 240  # pictures of a timeline; its page stays a few megabytes
DESCRIBE = "Describe this masked region in detail."  # what is asked where there is no question

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{{ title }}</title><style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(22rem, 1fr)); gap: 1.5rem; }
figure { margin: 0; border: 1px solid #8886; border-radius: 6px; padding: .75rem; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; }
dt { font-weight: 600; } dd { margin: 0 0 .4rem; white-space: pre-wrap; }
</style></head><body><h1>{{ title }}</h1><p>{{ summary }}</p><main>
{% for one in figures %}<figure>
{% if one.picture %}
<img alt="{{ one.name }} with its regions" src="data:image/jpeg;base64,{{ one.picture }}">
{% else %}<p>(no picture: {{ one.why }})</p>{% endif %}
<dl><dt>{{ one.name }} ({{ one.kind }})</dt><dd>{{ one.question }}</dd>
{% for label, text in one.said.items() %}<dt>{{ label }}</dt><dd>{{ text }}</dd>{% endfor %}
</dl></figure>
{% endfor %}</main></body></html>
"""


@dataclass(frozen=True)
class Figure:
    """A picture's place: its name and kind, the question, and texts by label, such as the answer.

    picture: a JPEG in base64, as `encoded` makes it; None: why there is none.
    """

    name: str
    kind: str
    question: str
    said: Mapping[str, str]
    picture: str | None
    why: str = ""


def encoded(image: NDArray[np.uint8], masks: Mapping[int, Mask]) -> str:
    """The RGB picture [H,W,3] with its regions, at most 640 pixels wide, as a JPEG in base64."""
    drawn = draw_regions(image, masks)
    drawn.thumbnail((WIDTH, 4 * WIDTH))
    content = io.BytesIO()
    drawn.save(content, "JPEG", quality=80)
    return base64.b64encode(content.getvalue()).decode()


def write_figures(path: Path, title: str, summary: str, figures: Sequence[Figure]) -> None:
    """Write the page, whole or not at all."""
    template = Environment(autoescape=True).from_string(_TEMPLATE)
    text = template.render(title=title, summary=summary, figures=figures)
    write_whole(path, text.encode("utf-8", "backslashreplace"))


@dataclass
class TimelinePage:
    """A sink: the frames that were asked about, in their order. Of more than `MOST` every other one is left out, as
    often as need be, so that a page of hours is no larger than one of minutes, and has something of each.

    `GarImageError` where its folder is not there.
    """

    path: Path
    title: str
    frames: int = 0
    _figures: list[Figure] = field(default_factory=list)
    _every: int = 1

    def __post_init__(self) -> None:
        if not self.path.absolute().parent.is_dir():
            raise GarImageError(f"{self.path}: its folder does not exist; make it first")

    def add(self, moment: Moment, entries: Sequence[Entry]) -> None:
        """Draw the frame with all regions that were asked about; one about which nothing was said is left out."""
        if not entries:
            return
        if self.frames % self._every == 0:
            self._figures.append(_figure(moment, entries))
        self.frames += 1
        if len(self._figures) > MOST:
            self._figures = self._figures[::2]
            self._every *= 2

    def close(self, *, whole: bool) -> None:
        """Write the page, also of what there was where the run broke off."""
        left_out = f" One of {self._every} is shown; --out FILE.jsonl has all." if self._every > 1 else ""
        broken = "" if whole else " It broke off."
        write_figures(self.path, self.title, f"{self.frames} frames.{left_out}{broken}", self._figures)


def _figure(moment: Moment, entries: Sequence[Entry]) -> Figure:
    masks: dict[int, Mask] = {}
    said: dict[str, str] = {}
    if len(entries) == 1:
        masks, said = dict(entries[0].masks), {"answer": entries[0].said}
    else:  # each about a thing of its own, which are numbered in the picture by their places
        for place, entry in enumerate(entries):
            if entry.masks:
                masks[place] = next(iter(entry.masks.values()))
            said[f"{place}: {entry.fields.get('id', '')}"] = entry.said
    questions = dict.fromkeys(entry.question or DESCRIBE for entry in entries)
    about = f"{moment.seconds:.2f} s"
    if moment.stamp is not None:
        about += f", {moment.stamp // 10**9}.{moment.stamp % 10**9:09}"
    shown, why = None, ""
    try:
        shown = encoded(moment.frame.image, masks)
    except GarImageError as error:
        why = str(error)
    return Figure(f"frame {moment.frame.number}", about, "\n".join(questions), said, shown, why)
