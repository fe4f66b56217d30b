"""`gar-export`: a GAR checkpoint to a bundle that `gar-run` answers from."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gar_edge.models.sizes import Size
from gar_edge.runtime.errors import GarExportError, GarValidationError
from gar_edge.runtime.terminal import run_app

if TYPE_CHECKING:
    from gar_edge.export.bundle_writer import Exported
    from gar_edge.models.checkpoint import Checkpoint

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def export(
    size: Annotated[Size | None, typer.Option(help="A released model by size, fetched from the hub.")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A folder in the released format (config.json, safetensors, tokenizer).", show_default=False),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Hub revision (branch, tag or commit).", show_default=False)
    ] = None,
    fp32: Annotated[bool, typer.Option("--fp32", help="32-bit weights (default).")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="16-bit weights: half the size, for GPUs.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Bundle folder. Default: in the per-user data folder.", show_default=False),
    ] = None,
    max_tiles: Annotated[
        int | None,
        typer.Option(min=1, help="Most tiles a picture is cut into. Default: the checkpoint's.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    no_validate: Annotated[bool, typer.Option("--no-validate", help="Skip the comparison with torch.")] = False,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="True dimensions, random numbers, no download: to try a device."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Export a GAR checkpoint to encoder, RoI-replay and decoder graphs.

    `gar-export --size 1b`

    `gar-export --checkpoint ./GAR-1B --fp16 -o gar-1b-fp16`
    """
    _check_usage(size, checkpoint, revision, fp32, fp16, random_weights)
    try:
        import torch  # noqa: F401 - too slow for --help, so only here
    except ImportError:
        raise GarExportError("exporting needs torch and onnx; pip install 'gar-edge[export]'") from None
    from gar_edge.export.bundle_writer import ExportOptions, check_destination, export_bundle
    from gar_edge.export.graphs import Precision
    from gar_edge.export.terminal import TerminalProgress, print_report
    from gar_edge.export.validate import Report
    from gar_edge.runtime.paths import default_bundle

    if output is not None:
        check_destination(output, force)  # before a download
    source = _open(size, checkpoint, revision, random_weights)
    precision = Precision.FP16 if fp16 else Precision.FP32
    folder = output or default_bundle(f"{source.name.replace('/', '--')}-{precision.value}")
    options = ExportOptions(precision, max_tiles, force, not no_validate)
    begin = time.perf_counter()
    try:
        with TerminalProgress(sys.stderr) as progress:
            exported = export_bundle(source, folder, options, progress)
    except GarValidationError as error:
        if isinstance(error.report, Report) and not as_json:
            print_report(error.report)
        raise
    if as_json:
        print(json.dumps(_summary(exported)))
        return
    if exported.report is not None:
        print_report(exported.report)
    seconds = time.perf_counter() - begin
    print(f"{exported.folder}: {exported.manifest.name}, {exported.bytes / 1e6:.0f} MB in {seconds:.0f} s")
    print("Try it: gar-run IMAGE --mask MASK.png")


def _check_usage(
    size: Size | None, checkpoint: Path | None, revision: str | None, fp32: bool, fp16: bool, random_weights: bool
) -> None:
    if (size is None) == (checkpoint is None):
        raise typer.BadParameter("give either --size or --checkpoint")
    if fp32 and fp16:
        raise typer.BadParameter("--fp32 and --fp16 exclude each other")
    if random_weights and size is None:
        raise typer.BadParameter("--random-weights takes its dimensions from --size")
    if revision is not None and (size is None or random_weights):
        raise typer.BadParameter("--revision goes with --size from the hub")


def _open(size: Size | None, checkpoint: Path | None, revision: str | None, random_weights: bool) -> Checkpoint:
    from gar_edge.models.checkpoint import open_checkpoint, shipped_checkpoint
    from gar_edge.models.hub import hub_checkpoint
    from gar_edge.models.standin import random_checkpoint

    if checkpoint is not None:
        return open_checkpoint(checkpoint)
    assert size is not None
    if random_weights:
        return random_checkpoint(size)
    if size.preset.hub is None:
        return open_checkpoint(shipped_checkpoint(size), name=f"gar-{size.value}")
    return hub_checkpoint(size.preset.hub, revision)


def _summary(exported: Exported) -> dict[str, Any]:
    return {
        "bundle": str(exported.folder),
        "model": exported.manifest.name,
        "bytes": exported.bytes,
        "validation": exported.manifest.validation,
    }


def main() -> None:
    """Entry point of `gar-export`."""
    run_app(app)


if __name__ == "__main__":
    main()
