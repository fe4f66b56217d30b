"""What every input becomes: entries in the form of jobs (`jobs.job`), one for each row of the output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_NAMED = re.compile(r"<Prompt(\d+)>")
ORIGIN = "origin"  # field of an entry: what the file says beside, for whoever writes captions back


@dataclass(frozen=True)
class Entry:
    """One row that is to be.

    source: the file, relative to the input. place: in it. value: the job's JSON. error: what is wrong with it, where
    it cannot even be a job.
    """

    source: str
    place: int
    value: Any
    error: str | None = None

    @property
    def picture(self) -> str | None:
        """Its name in the input; None where the entry names none."""
        name = self.value.get("image") if isinstance(self.value, dict) else None
        return name if isinstance(name, str) else None


def rows_of(entry: Entry, question: str | None) -> Iterator[Entry]:
    """The entry with the question of all, where it has none of its own, and by itself for each region.

    A question that names several regions is asked about all of them together.
    """
    value = entry.value
    if entry.error is not None or not isinstance(value, dict) or value.get("question") not in (None, ""):
        yield entry
        return
    if question is not None:
        value = {**value, "question": question}
    together = question is not None and len(set(_NAMED.findall(question))) > 1
    name = "mask_rles" if "mask_rles" in value else "regions"
    regions = value.get(name)
    if together or value.get("choices") or not isinstance(regions, list) or len(regions) < 2:
        yield Entry(entry.source, entry.place, value)
        return
    for number, region in enumerate(regions):
        yield Entry(entry.source, entry.place, {**value, name: [region], "region": number})
