"""An open picture, and what can be asked about its regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gar_edge.runtime.asking import Askable, region_numbers
from gar_edge.runtime.chat import Chat
from gar_edge.runtime.generate.answer import StopWatch
from gar_edge.runtime.generate.options import DEFAULT, Options
from gar_edge.runtime.generate.prompt import Turn
from gar_edge.runtime.generate.request import OpenPicture, Regions, Request, Wanted
from gar_edge.runtime.generate.scheduler import Scheduler
from gar_edge.runtime.generate.side_by_side import Asked
from gar_edge.runtime.images.loading import Picture
from gar_edge.runtime.regions.find import find_mask
from gar_edge.runtime.regions.kinds import RegionLike


class Scene(Askable[RegionLike]):
    """A picture cut into tiles, ready for questions about its regions.

    Another region encodes only the thumbnail and the tiles that its mask or the earlier one touches; another question
    about the same regions prefills only what differs. Both are exact, and `Answer.reuse` counts them.
    """

    def __init__(self, scheduler: Scheduler, picture: Picture, opened: OpenPicture, *, opening_ms: float = 0.0) -> None:
        """opened: the picture cut into tiles. opening_ms: what that took; counts for the first answer about it."""
        super().__init__(scheduler, opening_ms=opening_ms)
        self.image = picture.pixels
        self.turn = picture.turn
        self.tiles = opened.tiles
        self.grid = opened.grid
        self.opened = opened

    def chat(self, regions: Mapping[int, RegionLike], *, options: Options = DEFAULT) -> Chat:
        """Begin a conversation about regions: each question may build on the answers before it."""
        watch = StopWatch()
        wanted = Wanted.of(self._scheduler.pipeline, options, region_numbers(regions))
        found = self._found(regions, watch)
        opening_ms = self._take_opening() + watch["preprocess"]
        return Chat(self._scheduler, self.opened, found, wanted=wanted, opening_ms=opening_ms)

    def prepare(
        self,
        question: str | None,
        regions: Mapping[int, RegionLike],
        *,
        turns: Sequence[Turn] = (),
        options: Options = DEFAULT,
    ) -> Asked:
        """As in `Askable`; regions are what `find_mask` takes.

        turns: how a conversation that began with the question has gone on; the last one's question is to be answered.
        """
        watch, pipeline = StopWatch(), self._scheduler.pipeline
        numbers = region_numbers(regions)
        pipeline.prompts.check(question, numbers, turns)
        wanted = Wanted.of(pipeline, options, numbers)
        found = self._found(regions, watch)
        ids = pipeline.prompts.build(question, found.numbers, len(self.tiles), turns)
        request = Request.of(pipeline, self.opened, found, ids, wanted)
        return Asked(request, watch, self._take_opening())

    def _found(self, regions: Mapping[int, RegionLike], watch: StopWatch) -> Regions:
        """Regions at the picture's size, in the caller's order."""
        with watch.stage("preprocess"):
            masks = {
                number: find_mask(regions[number], self.image, name=f"region {number}", turn=self.turn)
                for number in region_numbers(regions)
            }
            return Regions.of(self._scheduler.pipeline, self.opened, masks)
