"""A page of what went wrong: pictures with their regions, questions, answers, and what would have been right."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment

from gar_edge.runtime.errors import GarError
from gar_edge.runtime.evaluate.task import Item
from gar_edge.runtime.files.addresses import beside
from gar_edge.runtime.files.atomic import write_whole
from gar_edge.runtime.images.loading import load_picture
from gar_edge.runtime.jobs.question import read_question
from gar_edge.runtime.regions import box_mask
from gar_edge.runtime.regions.files import entry_regions, in_folder
from gar_edge.runtime.regions.find import find_mask
from gar_edge.runtime.regions.overlay import draw_regions

MOST = 60  # pictures on a page; it stays a few megabytes
WIDTH = 640

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
{% for one in cases %}<figure>
{% if one.picture %}
<img alt="{{ one.name }} with its regions" src="data:image/jpeg;base64,{{ one.picture }}">
{% else %}<p>(no picture: {{ one.why }})</p>{% endif %}
<dl><dt>{{ one.name }} ({{ one.kind }})</dt><dd>{{ one.question }}</dd>
{% for label, text in one.said.items() %}<dt>{{ label }}</dt><dd>{{ text }}</dd>{% endfor %}
</dl></figure>
{% endfor %}</main></body></html>
"""


@dataclass(frozen=True)
class Case:
    """An item to show, with texts by label, such as the answer and the right one."""

    item: Item
    said: Mapping[str, str]


def write_page(path: Path, title: str, summary: str, cases: Sequence[Case], data: Path) -> None:
    """Write the page, of the first 60 cases; a picture that is missing leaves its place to a line that says so."""
    shown = [_shown(case, data) for case in cases[:MOST]]
    if len(cases) > MOST:
        summary += f" The first {MOST} of {len(cases)} are shown."
    template = Environment(autoescape=True).from_string(_TEMPLATE)
    write_whole(path, template.render(title=title, summary=summary, cases=shown).encode("utf-8", "backslashreplace"))


def _shown(case: Case, data: Path) -> dict[str, object]:
    item, field = case.item, case.item.job.field
    about: dict[str, object] = {"name": item.image, "kind": item.kind, "said": case.said}
    if isinstance(field, GarError):
        return about | {"question": "", "picture": None, "why": str(field)}
    about["question"] = read_question(field) or "Describe this masked region in detail."
    try:
        picture = load_picture(beside(data, item.image))
        regions = entry_regions(field, in_folder(data)).items()
        masks = {
            number: find_mask(region, picture.pixels, box_mask, f"region {number}", turn=picture.turn)
            for number, region in regions
        }
    except GarError as error:
        return about | {"picture": None, "why": str(error)}
    drawn = draw_regions(picture.pixels, masks)
    drawn.thumbnail((WIDTH, 4 * WIDTH))
    content = io.BytesIO()
    drawn.save(content, "JPEG", quality=80)
    return about | {"picture": base64.b64encode(content.getvalue()).decode()}
