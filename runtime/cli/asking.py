"""What `gar-run` does about a picture: load, ask, show; once, or again and again."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import typer

from gar_edge.runtime.cli.interactive import Dialogue
from gar_edge.runtime.cli.loading import EngineSettings
from gar_edge.runtime.cli.region_options import RegionArguments, cut_out, read_arguments
from gar_edge.runtime.cli.streams import to_json
from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.generate.answer import Answer
from gar_edge.runtime.generate.choosing import Choice
from gar_edge.runtime.generate.options import Options
from gar_edge.runtime.generate.stream import AnswerStream
from gar_edge.runtime.images.loading import load_picture
from gar_edge.runtime.images.shape import Mask, pixel_box
from gar_edge.runtime.regions.find import Segmenter
from gar_edge.runtime.regions.overlay import check_writable, draw_overlay
from gar_edge.runtime.scene import Scene


@dataclass(frozen=True)
class Asking:
    """What is asked, and how. question: None to have the region described. max_tiles: None for the bundle's limit."""

    arguments: RegionArguments
    question: str | None
    options: Options
    segment: Segmenter
    max_tiles: int | None


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
            understood = {"regions": len(boxes), "boxes": boxes}
            print(to_json(stream.finish().to_json() | understood, sys.stdout), flush=True)
        else:
            for piece in stream:
                sys.stdout.write(piece)
                sys.stdout.flush()
            print(flush=True)
        answer = stream.finish()
        if not self.as_json:
            why = self._why_cut_off(answer)
            if why is not None:
                print(f"(cut off after {len(answer.tokens)} tokens; {why})", file=sys.stderr)
            elif isinstance(answer, Choice) and answer.choices:
                print(_probabilities(answer), file=sys.stderr)
        if self.overlay is not None:
            draw_overlay(scene.image, masks, question, answer.text).save(self.overlay)

    def _why_cut_off(self, answer: Answer) -> str | None:
        if answer.finish_reason == "timeout":
            return "--seconds allows more"
        if answer.finish_reason == "length":
            enough = len(answer.tokens) == self.max_new_tokens
            return "--max-new-tokens allows more" if enough else "the model's context is full"
        return None


def _probabilities(choice: Choice) -> str:
    """The choices in a line, the likeliest first."""
    ranked = sorted(choice.choices, key=lambda one: -one.probability)
    named = ", ".join(f"{one.text} {one.probability:.1%}" for one in ranked)
    return f"({named})" if choice.best is not None else f"(none is likely enough: {named})"


def ask_about(
    image: Path, asking: Asking, engine: EngineSettings, output: Output, *, interactive: bool = False
) -> None:
    """Ask about one picture, and go on asking where that is wished."""
    # Files first: a mistyped name should not wait for a model of gigabytes.
    picture = load_picture(image)
    if output.overlay is not None:
        check_writable(output.overlay)
    described = asking.question is None and not interactive
    regions = read_arguments(asking.arguments, str(image), described)
    cut = cut_out(regions, picture.pixels, asking.segment, picture.turn)
    gar = engine.load()
    masks = {gar.manifest.prompt.default_region if number is None else number: mask for number, mask in cut.items()}

    def ask(question: str | None, about: Mapping[int, Mask], options: Options) -> None:
        output.show(scene, question, about, scene.stream(question, about, options=options))

    try:
        scene = gar.open(picture.pixels, max_tiles=asking.max_tiles)
        if asking.question is not None or not interactive:
            ask(asking.question, masks, asking.options)
    except GarPromptError as error:
        raise typer.BadParameter(str(error)) from None
    if interactive:

        def ask_again(question: str | None, about: Mapping[int, Mask], cancel: threading.Event) -> None:
            ask(question, about, replace(asking.options, cancel=cancel))

        Dialogue(masks, ask_again, len(gar.manifest.prompt.regions)).run()
