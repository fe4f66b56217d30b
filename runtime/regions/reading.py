"""What is read of a file of regions: those that can be, and why the others cannot."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gar_edge.runtime.errors import GarError, GarMaskError
from gar_edge.runtime.files.fields import Field

if TYPE_CHECKING:
    from gar_edge.runtime.regions.kinds import RegionLike


@dataclass
class Reading:
    """regions: in the file's order, numbered from 0 without what was left out. ids: those that the file gives them.

    skipped: what was left out, and why.
    """

    regions: list[RegionLike] = field(default_factory=list)
    ids: list[int | str | None] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def add(self, region: RegionLike, key: int | str | None = None) -> None:
        self.regions.append(region)
        self.ids.append(key)

    @contextmanager
    def skipping(self) -> Iterator[None]:
        """What cannot be read inside is left out."""
        try:
            yield
        except GarError as error:
            self.skipped.append(str(error))

    def warn(self) -> None:
        """A warning for each entry that was left out."""
        for why in self.skipped:
            warnings.warn(f"{why}: left out, the others are numbered without it", stacklevel=4)


@contextmanager
def naming(entry: Field) -> Iterator[None]:
    """Errors of what is made inside say where it stands."""
    try:
        yield
    except GarMaskError as error:
        if str(error).startswith(entry.source):
            raise
        raise entry.error(f"{entry.source}: {entry.where or 'the region'}: {error}") from None
