"""`gar-label INPUT --out DIR`: regions of a whole dataset, by many workers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gar_edge.runtime.cli.checked_answers import Choices, Regex, SchemaFile
from gar_edge.runtime.cli.shared_options import ANSWER, MaxNewTokens, MaxTiles
from gar_edge.runtime.cli.terminal import run_app
from gar_edge.runtime.engines.names import BackendName

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)

WORKERS, DRY = "Workers", "Before it is done"


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def label(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="COCO, LVIS or jobs (.json, .jsonl), Parquet, or a folder of these or of labelme's files.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the output; what is finished there is left out.", show_default=False)
    ],
    pictures: Annotated[
        Path | None,
        typer.Option(help="Where pictures lie. Default: beside the files that name them.", show_default=False),
    ] = None,
    question: Annotated[
        str | None,
        typer.Option(
            "-q",
            "--question",
            help="Asked about every region, as `<Prompt0>`. Without it regions are described.",
            show_default=False,
            rich_help_panel=ANSWER,
        ),
    ] = None,
    choose: Choices = None,
    schema: SchemaFile = None,
    regex: Regex = None,
    max_new_tokens: MaxNewTokens = 1024,
    max_tiles: MaxTiles = None,
    box_as_mask: Annotated[
        bool, typer.Option("--box-as-mask", help="Take boxes as they are.", rich_help_panel=ANSWER)
    ] = False,
    jsonl: Annotated[
        Path | None, typer.Option(help="Write all rows here too, as JSON lines.", show_default=False)
    ] = None,
    coco: Annotated[
        Path | None, typer.Option(help="Write COCO annotations with captions here too.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    model: Annotated[
        Path | None,
        typer.Option(
            "-m",
            "--model",
            help="Bundle folder, the same on every machine. Default: the one exported last, or else gar-nano.",
            show_default=False,
            rich_help_panel=WORKERS,
        ),
    ] = None,
    workers: Annotated[
        str,
        typer.Option(metavar="N|auto", help="auto: as many as processors or GPUs hold.", rich_help_panel=WORKERS),
    ] = "auto",
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT|auto",
            help="A Ray cluster's head. Without it the work is done on this machine.",
            show_default=False,
            rich_help_panel=WORKERS,
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads of each worker.", rich_help_panel=WORKERS)] = 1,
    batch: Annotated[
        int, typer.Option(min=1, help="Answers side by side in each worker.", rich_help_panel=WORKERS)
    ] = 8,
    backend: Annotated[BackendName, typer.Option(help="The engine, as of gar-run.", rich_help_panel=WORKERS)] = (
        BackendName.AUTO
    ),
    compat: Annotated[
        bool, typer.Option("--compat", help="The compat decoder, as of gar-run.", rich_help_panel=WORKERS)
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Count the rows, answer a sample, say what all would take.", rich_help_panel=DRY
        ),
    ] = False,
    sample: Annotated[int, typer.Option(min=1, help="Pictures of the sample.", rich_help_panel=DRY)] = 16,
    hourly: Annotated[
        float | None,
        typer.Option(min=0, help="What a worker costs an hour.", show_default=False, rich_help_panel=DRY),
    ] = None,
) -> None:
    """Describe every region of a dataset, or ask about it; rows go to DIR as Parquet, each exactly once.

    Run again after a failure or a kill, it goes on with what is left.

    `gar-label instances.json --out captions --workers 4`

    `gar-label pictures/ --out colours -q "What colour is <Prompt0>?" --address 10.0.0.1:6379`
    """
    import json

    from gar_edge.runtime.label.needs import check_installed

    check_installed()
    from gar_edge.runtime.cli.checked_answers import Checks
    from gar_edge.runtime.cli.label_run import Labelling
    from gar_edge.runtime.engines.names import DecoderName
    from gar_edge.runtime.errors import GarError
    from gar_edge.runtime.label.inputs import Input
    from gar_edge.runtime.label.output import Output
    from gar_edge.runtime.label.task import Loader

    checks = Checks(choose or [], 0.0, schema, regex, None, None)
    choosing = checks.choosing()
    labelling = Labelling(
        source=Input(source, pictures),
        output=Output(out),
        load=Loader.of(
            model, backend=backend.value, decoder=DecoderName.of(compat).value, threads=threads, batch=batch
        ),
        question=question,
        choose=() if choosing is None else tuple(choosing.choices),
        schema=checks.schema(),
        regex=regex,
        max_new_tokens=max_new_tokens,
        max_tiles=max_tiles,
        box_as_mask=box_as_mask,
        workers=_count(workers),
        address=address,
        jsonl=jsonl,
        coco=coco,
    )
    if dry_run:
        estimate = labelling.price(sample, hourly)
        print(json.dumps(estimate) if as_json else "\n".join(f"{name}: {value}" for name, value in estimate.items()))
        return
    summary = labelling.run()
    if as_json:
        print(json.dumps(summary, ensure_ascii=False))
    told = f"{summary['rows']} rows, {summary['earlier']} of them finished before: {out}"
    print(f"{told} ({summary['rows_per_second']} rows/s)", file=sys.stderr)
    if summary["failed"]:
        raise GarError(f"{summary['failed']} of {summary['rows']} rows failed; their column error says why")


def _count(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is neither auto nor a number from 1 on", param_hint="--workers")
    return int(text)


def main() -> None:
    """Entry point of `gar-label`."""
    run_app(app)


if __name__ == "__main__":
    main()
