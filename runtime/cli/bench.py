"""`gar-bench -m BUNDLE …`: time every stage, beside what the machine can do."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gar_edge.runtime.cli.shared_options import Threads
from gar_edge.runtime.cli.terminal import fail, run_app
from gar_edge.runtime.engines.names import BackendName, DecoderName

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from gar_edge.runtime.bench.roof import Roof
    from gar_edge.runtime.bench.stages import Contestant, Setting
    from gar_edge.runtime.gar import Gar

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)

FLAT = 0.01  # memory may grow by so much in a soak


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def bench(
    model: Annotated[
        list[Path] | None,
        typer.Option("-m", "--model", help="Bundle folder; several are timed in turn. Default: the one exported last, "
                     "or else gar-nano.", show_default=False),
    ] = None,
    tiles: Annotated[int, typer.Option(min=1, help="Tiles of the picture, beside the thumbnail.")] = 4,
    regions: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Describe so many regions of one picture together; may be repeated. Default: 1.",
                     show_default=False),
    ] = None,
    new_tokens: Annotated[int, typer.Option(min=1, help="Length of every answer, in tokens.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that count, after one to warm up.")] = 3,
    backend: Annotated[BackendName, typer.Option(help="The engine.")] = BackendName.AUTO,
    compat: Annotated[bool, typer.Option("--compat", help="Take the decoder of gar-export --compat.")] = False,
    threads: Threads = 0,
    soak: Annotated[
        float,
        typer.Option(min=0.0, metavar="MINUTES",
                     help="Instead: ask for so long; fails where memory grows or an answer changes."),
    ] = 0.0,
    plot: Annotated[Path | None, typer.Option(help="Draw the figures into this PNG.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object; a list for several bundles.")] = False,
) -> None:  # fmt: skip
    """Time preprocessing, encoder, replay, prefill and decode of a bundle, and compare with the machine's roof.

    Weights do not matter for speed: `gar-export --size 1b --int8 --random-weights` makes a bundle to size a device
    with, without a download. Answers have a fixed length: stop tokens are not obeyed.
    """
    from rich.console import Console

    from gar_edge.runtime.bench.report import to_json
    from gar_edge.runtime.bench.stages import Contestant, Setting
    from gar_edge.runtime.bundle.shipped import usual_bundle
    from gar_edge.runtime.cli.engine_progress import TerminalWatch

    folders = model or [usual_bundle()]
    counts = tuple(dict.fromkeys(regions or [1]))
    setting = Setting(tiles, counts, new_tokens, backend.value, DecoderName.of(compat).value, threads)
    console = Console(stderr=True)
    with TerminalWatch(sys.stderr) as watch:
        contestants = [Contestant(folder, setting, watch) for folder in folders]
    if soak:
        _soak([contestant.gar for contestant in contestants], soak, as_json, console)
        return
    roof, peak = _rounds(contestants, rounds, threads, console)
    reports = [to_json(contestant, setting, roof, peak) for contestant in contestants]
    if plot is not None:
        from gar_edge.runtime.bench.plot import draw

        draw(reports, plot)
    if as_json:
        print(json.dumps(reports[0] if len(reports) == 1 else reports))
    else:
        _print(reports, setting, roof)


def _rounds(contestants: list[Contestant], rounds: int, threads: int, console: Console) -> tuple[Roof | None, int]:
    """The roof, where all run on the processor, and the process's peak memory in bytes.

    The roof is the best seen around the rounds: a machine that others use too shows less of it at most moments.
    """
    import resource

    from rich.progress import Progress

    from gar_edge.runtime.bench.roof import highest, measure_roof

    on_processor = all(contestant.gar.pipeline.backend.name == "onnxruntime" for contestant in contestants)
    roofs, peak = [], 0
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Timing", total=(rounds + 1) * len(contestants))
        for number in range(rounds + 1):
            for contestant in contestants:  # in turn, so that a busy machine slows all alike
                contestant.round()
                progress.advance(task)
                if number == 0:
                    contestant.samples.values.clear()  # that was to warm up
            if number == 0:
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # before the roof's own arrays
            if on_processor:
                roofs.append(measure_roof(threads))
    return highest(roofs) if roofs else None, peak


def _print(reports: list[dict[str, Any]], setting: Setting, roof: Roof | None) -> None:
    from rich.console import Console

    from gar_edge.runtime.bench.kernels import find_kernels
    from gar_edge.runtime.cli.bench_table import to_table

    first, console = reports[0], Console()
    console.print(to_table(reports))
    console.print(
        f"{first['setting']['tiles']} tiles, {first['setting']['prompt_tokens']} prompt tokens, "
        f"{first['setting']['new_tokens']} new ones; {first['machine']['processor']}, "
        f"{setting.threads or 'all'} threads, {first['setting']['backend']}", highlight=False,
    )  # fmt: skip
    if roof is not None:
        console.print(
            f"Roof: {roof.read_gb_s:.1f} GB/s read, {roof.copy_gb_s:.1f} GB/s copied, {roof.fp32_gop_s:.0f} GOP/s "
            f"of float32 products, {roof.int8_gop_s:.0f} of int8", highlight=False,
        )  # fmt: skip
        console.print(find_kernels().line(roof), highlight=False)


def _soak(models: list[Gar], minutes: float, as_json: bool, console: Console) -> None:
    from rich.progress import Progress

    from gar_edge.runtime.bench.soak import soak

    for gar in models:
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task(f"Soaking {gar.manifest.name}", total=1.0)
            drift = soak(gar, minutes * 60, partial(_show, progress, task))
        if as_json:
            print(json.dumps(vars(drift)))
        else:
            print(
                f"{gar.manifest.name}: {drift.answers} answers, {drift.changed} changed; memory {drift.memory:+.2%} "
                f"to {drift.rss_bytes / 1e6:.0f} MB, latency {drift.latency:+.1%}"
            )
        if drift.changed or drift.memory > FLAT:
            fail("answers changed" if drift.changed else f"memory grew by {drift.memory:.1%} (at most {FLAT:.0%})")


def _show(progress: Progress, task: TaskID, share: float) -> None:
    progress.update(task, completed=share)


def main() -> None:
    """Entry point of `gar-bench`."""
    run_app(app)


if __name__ == "__main__":
    main()
