"""`gar-engine build|info BUNDLE`: TensorRT engines of a bundle."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gar_edge.runtime.cli.terminal import run_app
from gar_edge.runtime.engines.names import ReplayForm
from gar_edge.runtime.engines.tensorrt.installed import RTX, TENSORRT, Library, load_library
from gar_edge.runtime.errors import GarBackendError

if TYPE_CHECKING:
    from gar_edge.runtime.engines.tensorrt.engines import BuiltEngine
    from gar_edge.runtime.engines.tensorrt.store import EngineRecord

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Folder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.callback()
def engines() -> None:
    """Build and list the TensorRT engines of a bundle. gar-run builds them too, the first time it needs them."""


@app.command("build")
def build_command(
    bundle: Folder,
    backend: Annotated[
        str | None,
        typer.Option(help="tensorrt or tensorrt_rtx. Default: the one that is installed.", show_default=False),
    ] = None,
    capacity: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens of prompt and answer together. Default: what the most tiles, five regions and "
            "256 new tokens need.",
            show_default=False,
        ),
    ] = None,
    max_tiles: Annotated[
        int | None,
        typer.Option(min=1, help="Most tiles beside the thumbnail. Default: the bundle's.", show_default=False),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Most answers side by side, each with a cache of its own. Default: 4.", show_default=False
        ),
    ] = None,
    replay: Annotated[
        ReplayForm | None,
        typer.Option(
            help="portable: the graph's own operators. plugin: the C++ plugin. aot: the plugin compiled into the "
            "engine (TensorRT 10.9 and later). Default: plugin where its library is named, else portable.",
            show_default=False,
        ),
    ] = None,
    plugin_library: Annotated[
        Path | None,
        typer.Option(metavar="LIB", help="The C++ plugin, libgar_roi_replay.so (tensorrt only).", show_default=False),
    ] = None,
    compute_capability: Annotated[
        str | None,
        typer.Option(
            metavar="X.Y", help="Build for such a GPU, which need not be here (tensorrt_rtx only).", show_default=False
        ),
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build anew what is there already.")] = False,
    as_json: Json = False,
) -> None:
    """Build the engines of a bundle for this machine.

    `gar-engine build gar-1b-int8`

    `gar-engine build gar-1b-fp16 --max-tiles 8 --capacity 4096 --replay aot`
    """
    if backend not in (None, TENSORRT, RTX):
        raise typer.BadParameter(f"{backend!r} is not {TENSORRT} or {RTX}", param_hint="--backend")
    library = load_library(backend) if backend is not None else _installed()
    from gar_edge.runtime.bundle.bundle import Bundle
    from gar_edge.runtime.cli.engine_progress import TerminalWatch
    from gar_edge.runtime.engines.cuda.api import Cuda
    from gar_edge.runtime.engines.tensorrt import engines
    from gar_edge.runtime.engines.tensorrt.plan import Limits
    from gar_edge.runtime.engines.tensorrt.roi_replay import Replay

    try:
        form = Replay.of(replay, plugin_library)
    except GarBackendError as error:
        raise typer.BadParameter(str(error), param_hint="--replay") from None
    cuda = None
    if compute_capability is not None:
        try:
            machine = engines.elsewhere(library, compute_capability)
        except GarBackendError as error:
            raise typer.BadParameter(str(error), param_hint="--compute-capability") from None
    else:
        cuda = Cuda.load()
        machine = engines.here(library, cuda)
    opened = Bundle.open(bundle)
    engines.suited(opened, library)
    try:
        limits = Limits.of(opened.manifest, max_tiles, capacity, batch)
    except GarBackendError as error:
        raise typer.BadParameter(str(error)) from None
    with TerminalWatch(sys.stderr) as watch:
        made = engines.build_engines(opened, library, machine, limits, form, rebuild, cuda, watch)
    if as_json:
        print(json.dumps({"bundle": str(bundle), "engines": [_shown(engine) for engine in made]}))
        return
    for engine in made:
        record = engine.record
        how = f"built in {record.build_seconds:.0f} s" if engine.built else "was there already"
        print(f"{engine.file}: {record.bytes / 1e6:.0f} MB, {how}")


@app.command("info")
def info_command(bundle: Folder, as_json: Json = False) -> None:
    """List a bundle's engines, and whether they fit this machine."""
    from gar_edge.runtime.bundle.bundle import read_manifest
    from gar_edge.runtime.engines.tensorrt.store import Store

    manifest, store, reasons = read_manifest(bundle), Store(bundle), {}
    for record in (records := store.records()):
        reasons[record.recipe.key()] = _misfit(record, manifest)
    if as_json:
        listed = [_described(record) | {"misfit": reasons[record.recipe.key()]} for record in records]
        print(json.dumps({"bundle": str(bundle), "engines": listed}))
        return
    from gar_edge.runtime.cli.engine_progress import print_records

    print_records(records, reasons)


def _installed() -> Library:
    """The TensorRT that is there, the regular one before RTX."""
    try:
        return load_library(TENSORRT)
    except GarBackendError as missing:
        try:
            return load_library(RTX)
        except GarBackendError:
            raise missing from None


def _misfit(record: EngineRecord, manifest: Any) -> str | None:
    from gar_edge.runtime.engines.cuda.api import Cuda
    from gar_edge.runtime.engines.tensorrt.engines import here
    from gar_edge.runtime.engines.tensorrt.store import misfit

    try:
        machine = here(load_library(record.recipe.engine), Cuda.load())
    except GarBackendError as error:
        return str(error)
    return misfit(record, manifest, machine)


def _shown(engine: BuiltEngine) -> dict[str, Any]:
    return _described(engine.record) | {"file": str(engine.file), "built": engine.built}


def _described(record: EngineRecord) -> dict[str, Any]:
    return {"key": record.recipe.key(), **dataclasses.asdict(record)}


def main() -> None:
    """Entry point of `gar-engine`."""
    run_app(app)


if __name__ == "__main__":
    main()
