"""A job to a request: its picture is opened, its regions are found, its prompt is made."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from gar_edge.runtime.errors import GarError
from gar_edge.runtime.files.addresses import beside
from gar_edge.runtime.files.fields import Text
from gar_edge.runtime.gar import Gar
from gar_edge.runtime.generate.side_by_side import Asked
from gar_edge.runtime.jobs.job import Job, JobSettings
from gar_edge.runtime.jobs.question import read_options, read_question
from gar_edge.runtime.regions.files import entry_regions
from gar_edge.runtime.regions.find import find_mask
from gar_edge.runtime.scene import Scene

OPEN_PICTURES = 4  # jobs about one picture tend to follow each other


class Preparation:
    """Makes requests of jobs, in several threads; jobs about one picture share its scene."""

    def __init__(
        self, gar: Gar, settings: JobSettings, *, find: Callable[[str], Path | str | bytes] | None = None
    ) -> None:
        """find: the file that a name in a job means, or its bytes; without it, files are named from the folder."""
        self._gar = gar
        self._find = find or partial(beside, settings.folder)
        self._settings = settings
        self._scenes: OrderedDict[str, Future[Scene]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, job: Job) -> Asked:
        """`GarError` for a job that cannot be asked."""
        if isinstance(job.field, GarError):
            raise job.field
        asked, options = read_question(job.field), read_options(job.field, self._settings.options)
        scene = self._scene(job.field["image"].to(Text))
        settings = self._settings
        masks = {
            number: find_mask(region, scene.image, settings.segment, f"region {number}", turn=scene.turn)
            for number, region in entry_regions(job.field, lambda name: self._find(name.to(Text))).items()
        }
        if asked is None and list(masks) == [0]:
            masks = {self._gar.manifest.prompt.default_region: masks[0]}
        return scene.prepare(asked, masks, options=options)

    def _scene(self, name: str) -> Scene:
        with self._lock:
            found = self._scenes.get(name)
            opening = found is None
            if found is None:
                found = self._scenes[name] = Future()
            self._scenes.move_to_end(name)
            while len(self._scenes) > OPEN_PICTURES:
                self._scenes.popitem(last=False)
        if opening:
            try:
                found.set_result(self._gar.open(self._find(name), max_tiles=self._settings.max_tiles))
            except BaseException as error:
                found.set_exception(error)
        return found.result()
