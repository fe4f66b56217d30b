"""Questions as the released evaluation of GAR-Bench asks them, for comparison with the published figures.

Its loop leaves the last mask's box behind, which then stands for every region; and a question about more regions than
the model knows lists the rest by names and reserved tokens, without mask or replayed features (evaluation/GAR-Bench of
Haochen-Wang409/Grasp-Any-Region). Their order, there a set's, is by number here.
"""

from __future__ import annotations

from pathlib import Path

from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.files.addresses import beside
from gar_edge.runtime.files.fields import Text
from gar_edge.runtime.gar import Gar
from gar_edge.runtime.generate.options import Options
from gar_edge.runtime.generate.request import Regions, Request, Wanted
from gar_edge.runtime.generate.side_by_side import Asked
from gar_edge.runtime.images.shape import mask_box
from gar_edge.runtime.jobs.job import Job
from gar_edge.runtime.jobs.question import read_question
from gar_edge.runtime.regions import box_mask
from gar_edge.runtime.regions.files import entry_regions, in_folder
from gar_edge.runtime.regions.find import find_mask


def prepare_as_released(gar: Gar, folder: Path, options: Options, job: Job) -> Asked:
    """A job's request; `GarError` where it cannot be asked even so."""
    if isinstance(job.field, GarPromptError):
        raise job.field
    pipeline = gar.pipeline
    scene = gar.open(beside(folder, job.field["image"].to(Text)))
    masks = {
        number: find_mask(region, scene.image, box_mask, f"region {number}", turn=scene.turn)
        for number, region in entry_regions(job.field, in_folder(folder)).items()
    }
    known = len(pipeline.manifest.prompt.regions)
    numbers = sorted(masks)[:known]
    last = mask_box(masks[max(masks)])
    regions = Regions.of(pipeline, scene.opened, {number: masks[number] for number in numbers}).all_at(last)
    question, tiles = read_question(job.field), len(scene.tiles)
    pipeline.prompts.check_said(question or "", numbers)
    ids = pipeline.prompts.build(question, numbers, tiles, beyond=len(masks) - len(numbers))
    wanted = Wanted.of(pipeline, options, numbers)
    return Asked(Request.of(pipeline, scene.opened, regions, ids, wanted))
