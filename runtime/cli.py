"""`gar-run IMAGE --mask [K=]FILE …`: ask about regions of a picture."""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gar_edge.runtime.choices import BackendName
from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.terminal import run_app

if TYPE_CHECKING:
    from gar_edge.runtime.stream import AnswerStream

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)

_NUMBERED = re.compile(r"(\d+)=(.+)")


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def run(
    image: Annotated[Path, typer.Argument(help="The picture: PNG, JPEG, WebP, …", show_default=False)],
    mask: Annotated[
        list[str],
        typer.Option(
            "--mask",
            metavar="[K=]FILE",
            help="A region: an image that is not black where the region is. Regions are numbered 0, 1, 2… unless K= "
            "says which <PromptK> it is. Give one to five.",
            show_default=False,
        ),
    ],
    question: Annotated[
        str | None,
        typer.Option(
            "-q",
            "--question",
            help="Names the regions as <Prompt0>, … Without it the region is described.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("-m", "--model", help="Bundle folder. Default: the one exported last.", show_default=False),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 1024,
    max_tiles: Annotated[
        int | None,
        typer.Option(min=1, help="Most tiles beside the thumbnail. Default: the bundle's.", show_default=False),
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: always the likeliest token; above: draw.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Draw from the likeliest tokens of this share.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Draw from so many likeliest tokens; 0: all.")] = 0,
    seed: Annotated[int | None, typer.Option(help="Makes draws repeatable.", show_default=False)] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="A text that ends the answer; may be repeated.", show_default=False)
    ] = None,
    backend: Annotated[
        BackendName,
        typer.Option(
            help="The engine. auto: on a GPU TensorRT or else cuda (ONNX Runtime there), if they can be had; else "
            "onnxruntime on the processor."
        ),
    ] = BackendName.AUTO,
    compat: Annotated[
        bool, typer.Option("--compat", help="Answer with the decoder that gar-export --compat wrote.")
    ] = False,
    threads: Annotated[int, typer.Option(min=0, help="Processor threads; 0: all cores.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the text.")] = False,
) -> None:
    """Describe a region of a picture, or answer a question about several.

    `gar-run photo.jpg --mask cup.png`

    `gar-run photo.jpg --mask cup.png --mask plate.png -q "Is <Prompt0> on <Prompt1>?"`
    """
    try:
        regions = number_masks(mask, question)
    except GarPromptError as error:
        raise typer.BadParameter(str(error), param_hint="--mask") from None
    from gar_edge.runtime.first_run import ABOUT_NANO, NANO, export_nano
    from gar_edge.runtime.gar import Gar
    from gar_edge.runtime.images import load_image, load_mask
    from gar_edge.runtime.paths import last_bundle
    from gar_edge.runtime.sampling import Options
    from gar_edge.runtime.tensorrt.terminal import TerminalWatch

    try:
        options = Options(max_new_tokens, temperature, top_p, top_k, seed, tuple(stop or ()))
    except GarPromptError as error:
        raise typer.BadParameter(str(error)) from None
    # Files first: a mistyped name should not wait for a model of gigabytes.
    picture = load_image(image)
    masks = {number: load_mask(file) for number, file in regions.items()}
    if model is None and last_bundle() is None:
        print("No bundle has been exported yet: exporting gar-nano once.", file=sys.stderr)
        export_nano()
    with TerminalWatch(sys.stderr) as watch:
        gar = Gar.load(model, backend.value, threads, decoder="compat" if compat else "standard", watch=watch)
    if model is None and gar.manifest.source.name == NANO:
        print(ABOUT_NANO, file=sys.stderr)
    number = regions.pop(-1, None)
    if number is not None:
        masks[gar.manifest.prompt.default_region] = masks.pop(-1)
    try:
        stream = gar.open(picture, max_tiles).stream(question, masks, options)
    except GarPromptError as error:
        raise typer.BadParameter(str(error)) from None
    _print(stream, max_new_tokens, as_json)


def number_masks(texts: list[str], question: str | None) -> dict[int, str]:
    """`[K=]FILE` arguments to files by region number: those without one take the lowest that are free.

    A single region that is described and has no number gets -1: the bundle knows which it is.
    """
    regions: dict[int, str] = {}
    unnumbered = []
    for text in texts:
        match = _NUMBERED.fullmatch(text)
        if not match:
            unnumbered.append(text)
            continue
        number, file = int(match[1]), match[2]
        if number in regions:
            raise GarPromptError(f"region {number} is given twice ({regions[number]} and {file})")
        regions[number] = file
    if question is None and len(texts) == 1 and unnumbered:
        return {-1: unnumbered[0]}
    free = (number for number in itertools.count() if number not in regions)
    return regions | dict(zip(free, unnumbered, strict=False))


def _print(stream: AnswerStream, max_new_tokens: int, as_json: bool) -> None:
    if as_json:
        print(json.dumps(stream.finish().to_json(), ensure_ascii=False))
        return
    for piece in stream:
        sys.stdout.write(piece)
        sys.stdout.flush()
    print(flush=True)
    answer = stream.finish()
    if answer.finish_reason == "length":
        why = "--max-new-tokens allows more" if len(answer.tokens) == max_new_tokens else "the model's context is full"
        print(f"(cut off after {len(answer.tokens)} tokens; {why})", file=sys.stderr)


def main() -> None:
    """Entry point of `gar-run`."""
    run_app(app)


if __name__ == "__main__":
    main()
