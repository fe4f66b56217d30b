"""A checkpoint to a bundle: traced, streamed, validated, and only then given its name."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnx_ir as ir
import psutil

from gar_edge.export import describe
from gar_edge.export.graphs import Precision, TracedGraph, trace_decoder, trace_encoder, trace_replay
from gar_edge.export.progress import Progress
from gar_edge.export.validate import Report, validate
from gar_edge.export.weights_file import DataFile, parameter_bytes, stream_weights
from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.weights import TOKEN_TABLE, Recipe
from gar_edge.runtime.bundle import remember_digests, sha256
from gar_edge.runtime.errors import GarExportError, GarValidationError
from gar_edge.runtime.manifest import FILE, FileEntry, Graph, Manifest
from gar_edge.runtime.paths import remember_bundle

_ABANDONED = 3600  # seconds
_MARGIN = 64 << 20  # bytes beside the weights: graphs, tokenizer, manifest


@dataclass(frozen=True)
class ExportOptions:
    """max_tiles None keeps the checkpoint's limit; force replaces an existing bundle; validate compares with torch."""

    precision: Precision = Precision.FP32
    max_tiles: int | None = None
    force: bool = False
    validate: bool = True


@dataclass(frozen=True)
class Exported:
    folder: Path
    manifest: Manifest
    report: Report | None
    bytes: int


def export_bundle(checkpoint: Checkpoint, destination: Path, options: ExportOptions, progress: Progress) -> Exported:
    """Write a bundle and return what it is; `GarExportError` (or its kind) and nothing on disk otherwise."""
    check_destination(destination, options.force)
    _check_tiles(checkpoint, options.max_tiles)
    describe.describe_prompt(checkpoint)  # a wrong tokenizer should fail before the long work
    progress.begin("Tracing the graphs")
    precision = options.precision
    traced = {
        "encoder": trace_encoder(checkpoint.config, precision),
        "roi_replay": trace_replay(checkpoint.config, precision),
        "decoder": trace_decoder(checkpoint.config, precision, checkpoint.tied),
    }
    with _staged(destination, options.force) as folder:
        _check_space(folder, traced, checkpoint, precision)
        manifest = _write(checkpoint, folder, traced, options, progress)
        report = None
        if options.validate:
            report = validate(checkpoint, folder, manifest, precision, progress)
            if not report.ok:
                raise GarValidationError(report.failure(), report)
            manifest = replace(manifest, validation=report.to_json())
        _write_manifest(folder, manifest)
    remember_digests(destination, manifest)
    remember_bundle(destination)
    return Exported(destination, manifest, report, sum(entry.bytes for entry in manifest.files.values()))


def _write(
    checkpoint: Checkpoint, folder: Path, traced: dict[str, TracedGraph], options: ExportOptions, progress: Progress
) -> Manifest:
    precision = options.precision
    table = folder / describe.TOKEN_TABLE
    files: dict[str, FileEntry] = {}
    text = checkpoint.config.text
    progress.begin("Writing the token table", text.vocab * text.hidden * precision.torch.itemsize)
    with DataFile(table, progress.advance) as data:
        data.append(Recipe((TOKEN_TABLE,), lambda rows: rows).make(checkpoint.weights, precision.torch))
        files[table.name] = data.entry()
    shared = {"head": table} if checkpoint.tied else {}

    graphs: dict[str, Graph] = {}
    for name, graph in traced.items():
        onnx_file, data_file = f"{name}.onnx", f"{name}.onnx.data"
        read = [onnx_file]
        if graph.recipes:
            reused = shared if name == "decoder" else {}
            progress.begin(f"Writing {data_file}", parameter_bytes(graph, precision, reused))
            with DataFile(folder / data_file, progress.advance) as data:
                stream_weights(graph, checkpoint.weights, precision, data, reused)
                files[data_file] = data.entry()
            read += [data_file, *(path.name for path in reused.values())]
        onnx.save(ir.to_proto(graph.model), str(folder / onnx_file))
        graphs[name] = describe.describe_graph(graph, tuple(read))
    (folder / describe.TOKENIZER).write_text(checkpoint.tokenizer_json, encoding="utf-8")
    (folder / describe.CHAT_TEMPLATE).write_text(checkpoint.chat_template, encoding="utf-8")
    for path in folder.iterdir():
        if path.name not in files:
            files[path.name] = FileEntry(path.stat().st_size, sha256(path))
    manifest = describe.make_manifest(checkpoint, precision, options.max_tiles, graphs, dict(sorted(files.items())))
    _write_manifest(folder, manifest)
    return manifest


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / FILE).write_text(json.dumps(manifest.to_json(), indent=1) + "\n", encoding="utf-8")


def check_destination(destination: Path, force: bool) -> None:
    """Raise `GarExportError` where a bundle may not be written; worth asking before a download."""
    if not destination.exists():
        return
    if not force:
        raise GarExportError(f"{destination}: exists already; --force replaces it, -o writes elsewhere")
    # --force is for replacing bundles, not for deleting whatever folder was named by mistake.
    if not destination.is_dir() or (any(destination.iterdir()) and not (destination / FILE).exists()):
        raise GarExportError(f"{destination}: is not a bundle, so --force does not replace it; choose another -o")


def _check_tiles(checkpoint: Checkpoint, max_tiles: int | None) -> None:
    config = checkpoint.config
    tiles = checkpoint.preprocessing.max_tiles if max_tiles is None else max_tiles
    features = config.tile_tokens * (tiles + 2)  # thumbnail, tiles, one region
    if tiles < 1 or features >= config.text.context:
        most = config.text.context // config.tile_tokens - 3
        raise GarExportError(
            f"{tiles} tiles make a prompt of over {features} tokens, the model takes {config.text.context}; "
            f"--max-tiles must be 1 to {most}"
        )


def _check_space(folder: Path, traced: dict[str, TracedGraph], checkpoint: Checkpoint, precision: Precision) -> None:
    text = checkpoint.config.text
    weights = sum(parameter_bytes(graph, precision) for graph in traced.values())
    table = 0 if checkpoint.tied else text.vocab * text.hidden * precision.torch.itemsize
    needed, free = weights + table + _MARGIN, shutil.disk_usage(folder).free
    if free < needed:
        raise GarExportError(
            f"{folder.parent}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free; "
            "make room, or name another disk with -o"
        )


@contextmanager
def _staged(destination: Path, force: bool) -> Iterator[Path]:
    """A scratch folder beside the destination that takes its name when all went well, and vanishes otherwise."""
    destination = destination.absolute()
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        _sweep(destination)
        scratch = destination.parent / f".{destination.name}.partial-{os.getpid()}"
        scratch.mkdir()
    except OSError as error:
        raise GarExportError(f"{destination.parent}: cannot be written to ({error.strerror})") from None
    try:
        yield scratch
        _give_name(scratch, destination, force)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise GarExportError(f"{destination.parent}: the disk is full; nothing was left behind") from None
        raise GarExportError(f"{destination}: cannot be written ({error})") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _give_name(scratch: Path, destination: Path, force: bool) -> None:
    if force and destination.exists():
        old = scratch.with_name(scratch.name + "-old")
        destination.rename(old)
        try:
            scratch.rename(destination)
        except BaseException:
            old.rename(destination)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        scratch.rename(destination)


def _sweep(destination: Path) -> None:
    """Remove scratch folders that killed exports of the same bundle left behind.

    Idle for an hour as well as without a process: another container's process has a number we cannot see.
    """
    for path in destination.parent.glob(f".{destination.name}.partial-*"):
        pid = path.name.rsplit("-", 1)[-1]
        if pid.isdigit() and not psutil.pid_exists(int(pid)) and time.time() - path.stat().st_mtime > _ABANDONED:
            shutil.rmtree(path, ignore_errors=True)
