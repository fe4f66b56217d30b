"""What `gar-run` does with its options: load, ask, show; once, again and again, or job by job."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import typer

from gar_edge.runtime.cli.engine_progress import TerminalWatch
from gar_edge.runtime.cli.first_run import ABOUT_NANO, NANO, export_nano
from gar_edge.runtime.cli.interactive import Session
from gar_edge.runtime.cli.job_bar import JobBar
from gar_edge.runtime.cli.region_options import RegionArguments, cut_out, read_arguments
from gar_edge.runtime.errors import GarError, GarPromptError
from gar_edge.runtime.files.paths import last_bundle
from gar_edge.runtime.gar import Gar, Scene
from gar_edge.runtime.generate.answer import Answer
from gar_edge.runtime.generate.sampling import Options
from gar_edge.runtime.generate.stream import AnswerStream
from gar_edge.runtime.images.loading import load_picture
from gar_edge.runtime.images.shape import Mask, pixel_box
from gar_edge.runtime.jobs.log import JobLog
from gar_edge.runtime.jobs.run import read_jobs, run_jobs
from gar_edge.runtime.regions.find import Segmenter
from gar_edge.runtime.regions.overlay import check_writable, draw_overlay


@dataclass(frozen=True)
class Engine:
    """Which bundle answers, and by which engine."""

    model: Path | None
    backend: str
    compat: bool
    threads: int

    def load(self) -> Gar:
        """The model; gar-nano is exported first where nothing has been."""
        if self.model is None and last_bundle() is None:
            print("No bundle has been exported yet: exporting gar-nano once.", file=sys.stderr)
            export_nano()
        with TerminalWatch(sys.stderr) as watch:
            decoder = "compat" if self.compat else "standard"
            gar = Gar.load(self.model, self.backend, self.threads, decoder=decoder, watch=watch)
        if self.model is None and gar.manifest.source.name == NANO:
            print(ABOUT_NANO, file=sys.stderr)
        return gar


@dataclass(frozen=True)
class Output:
    """How answers are shown. overlay: where the picture goes, if anywhere."""

    as_json: bool
    overlay: Path | None
    max_new_tokens: int

    def show(self, scene: Scene, question: str | None, masks: Mapping[int, Mask], stream: AnswerStream) -> None:
        """Print the answer while it is made, and draw it."""
        if self.as_json:
            boxes = {number: pixel_box(mask) for number, mask in masks.items()}
            print(json.dumps({"boxes": boxes, **stream.finish().to_json()}, ensure_ascii=False), flush=True)
        else:
            for piece in stream:
                sys.stdout.write(piece)
                sys.stdout.flush()
            print(flush=True)
        answer = stream.finish()
        why = self._why_cut_off(answer)
        if why is not None and not self.as_json:
            print(f"(cut off after {len(answer.tokens)} tokens; {why})", file=sys.stderr)
        if self.overlay is not None:
            draw_overlay(scene.image, masks, question, answer.text).save(self.overlay)

    def _why_cut_off(self, answer: Answer) -> str | None:
        if answer.finish_reason == "timeout":
            return "--seconds allows more"
        if answer.finish_reason == "length":
            enough = len(answer.tokens) == self.max_new_tokens
            return "--max-new-tokens allows more" if enough else "the model's context is full"
        return None


def ask_about(
    image: Path,
    arguments: RegionArguments,
    question: str | None,
    interactive: bool,
    engine: Engine,
    options: Options,
    segment: Segmenter,
    max_tiles: int | None,
    output: Output,
) -> None:
    """Ask about one picture, and go on asking where that is wished."""
    # Files first: a mistyped name should not wait for a model of gigabytes.
    picture = load_picture(image)
    if output.overlay is not None:
        check_writable(output.overlay)
    regions = read_arguments(arguments, str(image), question is None and not interactive)
    cut = cut_out(regions, picture.pixels, segment, picture.turn)
    gar = engine.load()
    masks = {gar.manifest.prompt.default_region if number is None else number: mask for number, mask in cut.items()}
    try:
        scene = gar.open(picture.pixels, max_tiles)
        if question is not None or not interactive:
            output.show(scene, question, masks, scene.stream(question, masks, options))
    except GarPromptError as error:
        raise typer.BadParameter(str(error)) from None
    if interactive:

        def ask(asked: str | None, about: Mapping[int, Mask], cancel: threading.Event) -> None:
            output.show(scene, asked, about, scene.stream(asked, about, replace(options, cancel=cancel)))

        Session(masks, ask, len(gar.manifest.prompt.regions)).run()


def answer_jobs(
    jobs: Path, jsonl: Path, engine: Engine, options: Options, segment: Segmenter, max_tiles: int | None
) -> None:
    """Answer what is left of the jobs; `GarError` in the end where some failed."""
    asked = read_jobs(jobs)
    with JobLog(jsonl) as log:
        if all(job.key in log.done for job in asked):
            failed, earlier = sum(not log.done[job.key] for job in asked), len(asked)
        else:
            gar = engine.load()
            with JobBar(len(asked), sys.stderr) as bar:
                tally = run_jobs(asked, log, gar, jobs.parent, options, segment, max_tiles, bar)
            failed, earlier = tally.failed, tally.earlier
    print(f"{len(asked)} jobs, {earlier} of them answered before: {jsonl}", file=sys.stderr)
    if failed:
        raise GarError(f"{failed} of {len(asked)} jobs failed; their lines in {jsonl} say why")
