"""`gar-run RECORDING --detections TOPIC`: what a detector found in each image is asked about."""

from __future__ import annotations

import re
from collections.abc import Mapping

import typer

from gar_edge.runtime.cli.asking import Asking
from gar_edge.runtime.cli.loading import EngineSettings
from gar_edge.runtime.cli.report import Report, Said
from gar_edge.runtime.cli.watching import Watching, begun
from gar_edge.runtime.errors import GarError, GarMaskError, GarPromptError
from gar_edge.runtime.gar import Gar
from gar_edge.runtime.images.shape import Mask
from gar_edge.runtime.recordings.detections import Detection
from gar_edge.runtime.recordings.recording import RecordedFrame, Recording

_REGION = re.compile(r"<Prompt(\d+)>")


def watch_detections(watching: Watching, asking: Asking, engine: EngineSettings) -> None:
    """Each detection is asked about on its own; a question that names several regions is asked once about the first
    detections of an image, in the message's order.
    """
    if asking.arguments:
        raise typer.BadParameter("--detections says where the regions are; drop the other regions")
    topic = str(watching.detections)
    named = sorted({int(number) for number in _REGION.findall(asking.question or "")})
    with begun(watching, asking, engine) as begin:
        assert isinstance(begin.frames, Recording)  # Watching refuses detections of anything else
        numbers = named or [begin.gar.manifest.prompt.default_region]
        begin.gar.pipeline.prompts.check(asking.question, numbers)
        for frame in begin.frames:
            if not watching.choice.takes(frame, False):
                continue
            found = frame.detections(topic)
            if found is not None:  # else no message of its stamp came, which is counted
                _ask(begin.gar, asking, begin.report, frame, found, numbers)


def _ask(
    gar: Gar, asking: Asking, report: Report, frame: RecordedFrame, found: list[Detection], numbers: list[int]
) -> None:
    question = asking.question
    if len(numbers) > 1 and len(found) < len(numbers):
        report.lost(frame, numbers[len(found) :])
        return
    try:
        scene = gar.open(frame.image, max_tiles=asking.max_tiles)
    except GarPromptError:
        raise
    except GarError as error:
        report.answers(frame, [Said(question, {}, error)])
        return
    height, width = scene.image.shape[:2]
    groups = [found[: len(numbers)]] if len(numbers) > 1 else [[one] for one in found]
    said: dict[int, Said] = {}
    asked: dict[int, tuple[str, Mapping[int, Mask]]] = {}
    for place, group in enumerate(groups):
        name = ", ".join(one.id for one in group)
        try:
            masks = {number: one.mask(height, width) for number, one in zip(numbers, group, strict=True)}
        except GarMaskError as error:
            said[place] = Said(question, {}, error, name)
        else:
            asked[place] = name, masks
    places = list(asked)
    questions = [(question, masks) for _, masks in asked.values()]
    for index, answer in scene.answer_all(questions, options=asking.options) if questions else ():
        name, shown = asked[places[index]]
        said[places[index]] = Said(question, shown, answer, name)
    report.answers(frame, [said[place] for place in sorted(said)])
