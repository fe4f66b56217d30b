"""`gar-serve`: regions over HTTP, and a page to draw them on."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from gar_edge.runtime.cli.shared_options import Backend, Model, Threads
from gar_edge.runtime.cli.terminal import Interrupted, run_app
from gar_edge.runtime.engines.names import BackendName

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)

LIMITS = "Limits"
ACCESS = "Who may ask"


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def serve(
    model: Model = None,
    host: Annotated[str, typer.Option(help="Address to listen on; another than this machine's own needs a key.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8080,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="Keys that may ask, one a line: KEY, or NAME KEY.",
            rich_help_panel=ACCESS,
            show_default=False,
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen for others without a key.", rich_help_panel=ACCESS)
    ] = False,
    name: Annotated[
        list[str] | None,
        typer.Option(help="A further name that the server is asked under, as behind a proxy.", rich_help_panel=ACCESS),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="A web page's origin that may ask, as https://robot.example.",
            rich_help_panel=ACCESS,
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Answers side by side.", rich_help_panel=LIMITS)] = 8,
    queue: Annotated[
        int,
        typer.Option(
            min=1, help="Questions that may be here at once, in the making or waiting.", rich_help_panel=LIMITS
        ),
    ] = 64,
    per_key: Annotated[int, typer.Option(min=1, help="Questions of one key at once.", rich_help_panel=LIMITS)] = 32,
    max_body_mib: Annotated[int, typer.Option(min=1, help="Of a request's body.", rich_help_panel=LIMITS)] = 32,
    max_pixels: Annotated[
        int,
        typer.Option(min=1, max=89_478_485, help="Of a picture or mask, before it is decoded.", rich_help_panel=LIMITS),
    ] = 50_000_000,
    max_regions: Annotated[int, typer.Option(min=1, help="Of one request.", rich_help_panel=LIMITS)] = 64,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.", rich_help_panel=LIMITS)] = 1024,
    max_seconds: Annotated[float, typer.Option(min=0.001, help="Of an answer.", rich_help_panel=LIMITS)] = 60.0,
    scenes: Annotated[int, typer.Option(min=1, help="Pictures kept open.", rich_help_panel=LIMITS)] = 64,
    scene_seconds: Annotated[
        float, typer.Option(min=1, help="How long after its last use a picture is kept.", rich_help_panel=LIMITS)
    ] = 600.0,
    stop_seconds: Annotated[
        float,
        typer.Option(min=0.001, help="For answers in the making once the server is stopped.", rich_help_panel=LIMITS),
    ] = 20.0,
    cache_mib: Annotated[
        int, typer.Option(min=0, help="For what earlier answers leave to later ones.", rich_help_panel=LIMITS)
    ] = 1024,
    allow_live: Annotated[
        bool,
        typer.Option("--allow-live", help="Questions may go before others (live).", rich_help_panel=LIMITS),
    ] = False,
    log_texts: Annotated[
        bool, typer.Option("--log-texts", help="Write questions and answers into the log too.")
    ] = False,
    backend: Backend = BackendName.AUTO,
    compat: Annotated[bool, typer.Option("--compat", help="The compat decoder, as of gar-run.")] = False,
    threads: Threads = 0,
) -> None:
    """Answer questions about regions over HTTP: OpenAI's API with regions, one of our own, and a page at /.

    One JSON line per request goes to standard output. SIGTERM and Ctrl-C finish what is asked and end with 0; SIGHUP
    reads the keys again.

    `gar-serve -m bundle --host 0.0.0.0 --api-key-file keys.txt`
    """
    from gar_edge.runtime.cli.loading import EngineSettings
    from gar_edge.runtime.errors import GarError
    from gar_edge.runtime.serve.needs import check_installed

    check_installed()
    from gar_edge.runtime.serve.access import Access, is_loopback, names_of, origins_of, read_keys
    from gar_edge.runtime.serve.app import create_app
    from gar_edge.runtime.serve.limits import MIB, Limits
    from gar_edge.runtime.serve.line_writer import LineWriter
    from gar_edge.runtime.serve.log import RequestLog
    from gar_edge.runtime.serve.server import bound, run

    if not is_loopback(host) and api_key_file is None and not insecure:
        raise typer.BadParameter(
            f"{host} can be reached by others; give --api-key-file, or --insecure to let anybody ask",
            param_hint="--host",
        )
    keys = {} if api_key_file is None else read_keys(api_key_file)
    access = Access(keys, names_of(name or ()), origins_of(allow_origin or ()))
    limits = Limits(
        body_bytes=max_body_mib * MIB,
        bodies_bytes=max(256, 2 * max_body_mib) * MIB,
        pixels=max_pixels,
        regions=max_regions,
        tokens=max_tokens,
        seconds=max_seconds,
        scenes=scenes,
        scene_seconds=scene_seconds,
        stop_seconds=stop_seconds,
        per_key=per_key,
        live=allow_live,
    )
    settings = EngineSettings(model=model, backend=backend.value, compat=compat, threads=threads)
    listening = bound(host, port)  # first: a taken port should not wait for a model
    try:
        loaded = settings.load(batch=batch, queue=queue, cache_bytes=cache_mib * MIB)
    except Interrupted:  # told to stop before there was anything to finish
        return
    with loaded as gar, LineWriter(sys.stdout) as write:
        log = RequestLog(write, texts=log_texts)
        served = create_app(gar, queue=queue, access=access, limits=limits, log=log)
        address = _address(host, listening.getsockname()[1])

        def started() -> None:
            about = f"{gar.manifest.name} ({gar.manifest.precision}) on {gar.pipeline.backend.name}"
            print(f"{about} at {address}  (page: {address}/, API: {address}/docs)", file=sys.stderr, flush=True)
            if not keys and not is_loopback(host):
                print("warning: anybody who reaches this address may ask (--insecure)", file=sys.stderr, flush=True)
            log.event("started", model=gar.manifest.name, address=address)

        def read_again(path: Path) -> None:
            try:
                served.guard.access = replace(access, keys=read_keys(path))
            except GarError as error:
                log.event("keys kept", why=str(error))
            else:
                log.event("keys read", count=len(served.guard.access.keys))

        run(
            served,
            listening,
            started=started,
            hung_up=None if api_key_file is None else partial(read_again, api_key_file),
        )
        log.event("stopped")


def _address(host: str, port: int) -> str:
    """Where to ask: of all addresses of a machine, the one that works on it."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}"


def main() -> None:
    """Entry point of `gar-serve`."""
    run_app(app)


if __name__ == "__main__":
    main()
