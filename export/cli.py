"""`gar-export`: a GAR checkpoint to a bundle that `gar-run` answers from."""

from __future__ import annotations

import dataclasses
import gc
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gar_edge.calibration.choices import AUTO, NONE, Calibrator
from gar_edge.export.devices import Choice, DeviceName, choose
from gar_edge.export.process import keep_freed_memory, settle_threads
from gar_edge.models.sizes import Size
from gar_edge.runtime.cli.terminal import run_app
from gar_edge.runtime.errors import GarExportError, GarOptionError, GarValidationError

if TYPE_CHECKING:
    from gar_edge.export.bundle_writer import Exported, ExportOptions
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
    int8: Annotated[bool, typer.Option("--int8", help="8-bit weights and activations, calibrated.")] = False,
    int4: Annotated[
        bool, typer.Option("--int4", help="4-bit weights in the decoder's layers; encoder and head as with --int8.")
    ] = False,
    fp8: Annotated[
        bool,
        typer.Option(
            "--fp8",
            help="8-bit floats (E4M3) for weights and activations, calibrated: for GPUs of compute capability 8.9 and "
            "newer.",
        ),
    ] = False,
    device: Annotated[
        DeviceName | None,
        typer.Option(
            "--for", help="Choose precision, decoder and tiles for a device, and say why.", show_default=False
        ),
    ] = None,
    compat: Annotated[
        bool,
        typer.Option(
            "--compat",
            help="Write the decoder for TensorRT before 10.15 (JetPack 6, 7.0, 7.1) too; not with --int4.",
        ),
    ] = False,
    split_head: Annotated[
        bool,
        typer.Option(
            "--split-head",
            help="The decoder's head as products of 64 MiB of weights at most, for Jetsons that refuse larger "
            "allocations; answers stay the same.",
        ),
    ] = False,
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
    calib_data: Annotated[
        Path | None,
        typer.Option(
            help="Pictures with regions to calibrate on: a folder with regions.json, COCO annotations (laid out as "
            "COCO, CVAT or Roboflow do), or NAME_mask.png beside each. Default: photographs that come with "
            "scikit-image.",
            show_default=False,
        ),
    ] = None,
    calib_samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Samples to calibrate on; a quarter more measures what it cost. Default: 8 photographs, "
            "16 of --calib-data.",
            show_default=False,
        ),
    ] = None,
    calibrator: Annotated[Calibrator, typer.Option(help="How ranges of activations are chosen.")] = Calibrator.MSE,
    keep_float: Annotated[
        str,
        typer.Option(
            help="Layers to leave in float: auto (the noisiest, until the budget holds; none of random weights), none, "
            "or A,B,…"
        ),
    ] = AUTO,
    report: Annotated[
        Path | None,
        typer.Option(help="Write a picture of what quantisation cost here (.html).", show_default=False),
    ] = None,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="True dimensions, random numbers, no download: to try a device."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Export a GAR checkpoint to encoder, RoI-replay and decoder graphs.

    `gar-export --size 1b`

    `gar-export --checkpoint ./GAR-1B --fp16 -o gar-1b-fp16`

    `gar-export --size 1b --int8 --calib-data ./pictures --report loss.html`

    `gar-export --size 1b --for orin`
    """  # fmt: skip
    flags = {"fp32": fp32, "fp16": fp16, "int8": int8, "int4": int4, "fp8": fp8}
    chosen = [name for name, wanted in flags.items() if wanted]
    _check_usage(size, checkpoint, revision, chosen, random_weights, compat, split_head, device)
    if device is None:
        _check_calibration(chosen, calib_data, calib_samples, keep_float, report)
    settle_threads()
    try:
        import torch  # noqa: F401 - too slow for --help, so only here
    except ImportError:
        raise GarExportError("exporting needs torch and onnx; pip install 'gar-edge[export]'") from None
    from gar_edge.calibration.picture import html_report
    from gar_edge.export.bundle_writer import ExportOptions, check_destination
    from gar_edge.export.graphs import Precision
    from gar_edge.export.quantise import Quantising
    from gar_edge.export.split_head import PRODUCT_BYTES
    from gar_edge.runtime.files.paths import default_bundle

    if output is not None:
        check_destination(output, force)  # before a download
    source = _open(size, checkpoint, revision, random_weights)
    fitted = None
    if device is not None:
        fitted = _fitted(source, device, max_tiles)
        chosen, compat, split_head, max_tiles = [fitted.precision], fitted.compat, fitted.split_head, fitted.tiles
        print("\n".join(fitted.sentences()), file=sys.stderr)
    precision = Precision(chosen[0] if chosen else "fp32")
    folder = output or default_bundle(f"{source.name.replace('/', '--')}-{precision.value}")
    if precision.quantised:
        keep_freed_memory()
    kept = keep_float if keep_float in (AUTO, NONE) else tuple(keep_float.split(","))
    if random_weights and keep_float == AUTO:
        kept = NONE  # what random weights lose says nothing, and a bundle to size a device with should have its size
    quantising = Quantising(_is_nano(size, checkpoint, random_weights), calib_data, calib_samples, calibrator, kept)
    options = ExportOptions(
        precision, max_tiles, force, not no_validate, quantising, compat, PRODUCT_BYTES if split_head else None,
        judged=not random_weights,
    )  # fmt: skip
    begin = time.perf_counter()
    exported = _export(source, folder, options, quiet=as_json)
    if report is not None and exported.account is not None:
        report.write_text(html_report(exported.account), encoding="utf-8")
    if as_json:
        print(json.dumps(_summary(exported, fitted)))
    else:
        _tell(exported, time.perf_counter() - begin)


def _export(source: Checkpoint, folder: Path, options: ExportOptions, quiet: bool) -> Exported:
    """Write the bundle; quiet: without the table of what a validation found that fails."""
    from gar_edge.export.bundle_writer import export_bundle
    from gar_edge.export.terminal import TerminalProgress, print_report
    from gar_edge.export.validate import Report

    try:
        with TerminalProgress(sys.stderr) as progress:
            return export_bundle(source, folder, options, progress)
    except GarOptionError as error:
        raise typer.BadParameter(str(error)) from None
    except GarValidationError as error:
        if isinstance(error.report, Report) and not quiet:
            print_report(error.report)
        raise


def _tell(exported: Exported, seconds: float) -> None:
    from gar_edge.export.terminal import print_account, print_report

    if exported.report is not None:
        print_report(exported.report)
    if exported.account is not None:
        print_account(exported.account)
    print(f"{exported.folder}: {exported.manifest.name}, {exported.bytes / 1e6:.0f} MB in {seconds:.0f} s")
    print("Try it: gar-run IMAGE --mask MASK.png")


def _check_usage(
    size: Size | None,
    checkpoint: Path | None,
    revision: str | None,
    precisions: list[str],
    random_weights: bool,
    compat: bool,
    split_head: bool,
    device: DeviceName | None,
) -> None:
    if (size is None) == (checkpoint is None):
        raise typer.BadParameter("give either --size or --checkpoint")
    if len(precisions) > 1:
        raise typer.BadParameter(f"{' and '.join('--' + name for name in precisions)} exclude each other")
    options = [f"--{name}" for name in precisions] + ["--compat"] * compat + ["--split-head"] * split_head
    if device is not None and options:
        raise typer.BadParameter(f"--for chooses {' and '.join(options)} by itself; leave one of the two out")
    if compat and precisions == ["int4"]:
        raise typer.BadParameter(
            "--compat goes with --fp32, --fp16, --int8 and --fp8: blocks of int4 need a newer opset"
        )
    if random_weights and size is None:
        raise typer.BadParameter("--random-weights takes its dimensions from --size")
    if revision is not None and (size is None or random_weights):
        raise typer.BadParameter("--revision goes with --size from the hub")


def _check_calibration(
    precisions: list[str], data: Path | None, samples: int | None, keep_float: str, report: Path | None
) -> None:
    if precisions and precisions[0] in ("int8", "int4", "fp8"):
        if report is not None and report.suffix != ".html":
            raise typer.BadParameter(f"--report writes .html, not {report.suffix or report.name!r}")
        return
    given = {"--calib-data": data, "--calib-samples": samples, "--report": report}
    extra = [name for name, value in given.items() if value is not None] + ["--keep-float"] * (keep_float != AUTO)
    if extra:
        raise typer.BadParameter(f"{', '.join(extra)}: only with --int8, --int4 or --fp8")


def _is_nano(size: Size | None, checkpoint: Path | None, random_weights: bool) -> bool:
    """Whether the model knows drawn shapes only, and should be calibrated on these."""
    from gar_edge.models.checkpoint import shipped_checkpoint

    if checkpoint is not None:
        return checkpoint.resolve() == shipped_checkpoint(Size.NANO).resolve()
    return size is Size.NANO and not random_weights


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


def _fitted(source: Checkpoint, device: DeviceName, max_tiles: int | None) -> Choice:
    """What suits the device; the user's own number of tiles goes before its."""
    from gar_edge.export.graphs import Precision
    from gar_edge.export.needed_memory import needed_gb

    limit = source.preprocessing.max_tiles if max_tiles is None else max_tiles

    def needed(precision: str, tiles: int | None, compat: bool) -> float:
        return needed_gb(source, Precision(precision), limit if tiles is None else tiles, compat)

    return choose(device, needed, limit, max_tiles)


def _summary(exported: Exported, fitted: Choice | None) -> dict[str, Any]:
    return {
        "for": None if fitted is None else dataclasses.asdict(fitted),
        "bundle": str(exported.folder),
        "model": exported.manifest.name,
        "bytes": exported.bytes,
        "validation": exported.manifest.validation,
        "quantization": exported.account,
    }


def main() -> None:
    """Entry point of `gar-export`."""
    try:
        run_app(app)
    finally:
        gc.freeze()  # or the collector goes through all that torch has made once more on the way out: a second


if __name__ == "__main__":
    main()
