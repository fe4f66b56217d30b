"""A checkpoint to a bundle: captured, streamed, validated, and only then given its name."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import psutil
import torch

from gar_edge.calibration.plan import ROUNDED, SCALE
from gar_edge.calibration.rounding import int8_per_channel
from gar_edge.calibration.sites import HEAD
from gar_edge.export import describe
from gar_edge.export.forms import Forms, write_graphs
from gar_edge.export.graphs import OpenGraph, Precision
from gar_edge.export.progress import Progress
from gar_edge.export.quantise import Quantising, calibration_options, write_quantised
from gar_edge.export.split_head import split_head
from gar_edge.export.validate import Report, validate
from gar_edge.export.weights_file import DataFile, Stored, parameter_bytes, point_at, stream_weights
from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.weights import TOKEN_TABLE, Recipe
from gar_edge.runtime.bundle.bundle import remember_digests
from gar_edge.runtime.bundle.manifest import FILE, FileEntry, Graph, GraphForm, Manifest
from gar_edge.runtime.engines.onnxruntime.newest_operators import NEEDED, knows_newest_operators
from gar_edge.runtime.engines.telemetry import import_onnxruntime
from gar_edge.runtime.errors import GarExportError, GarOptionError, GarValidationError
from gar_edge.runtime.files.digests import sha256
from gar_edge.runtime.files.paths import remember_bundle

_ABANDONED = 3600  # seconds
_MARGIN = 64 << 20  # bytes beside the weights: graphs, tokenizer, manifest


@dataclass(frozen=True)
class ExportOptions:
    """max_tiles None keeps the checkpoint's limit; force replaces an existing bundle; validate compares with torch.

    quantising: how, for the precisions that quantise. compat: the decoder also for engines of opset 20; not with int4.
    head_bytes: most weights of one product of the head, in forms not for processors; None: the head is one product.
    judged: whether a bundle that loses too much by quantisation is refused. remembered: as the one exported last.
    """

    precision: Precision = Precision.FP32
    max_tiles: int | None = None
    force: bool = False
    validate: bool = True
    quantising: Quantising = field(default_factory=Quantising)
    compat: bool = False
    head_bytes: int | None = None
    judged: bool = True
    remembered: bool = True


@dataclass(frozen=True)
class Exported:
    folder: Path
    manifest: Manifest
    report: Report | None
    bytes: int
    account: Mapping[str, Any] | None = None


def export_bundle(checkpoint: Checkpoint, destination: Path, options: ExportOptions, progress: Progress) -> Exported:
    """Write a bundle and return what it is; `GarExportError` (or its kind) and nothing on disk otherwise."""
    check_destination(destination, options.force)
    _check_tiles(checkpoint, options.max_tiles)
    describe.describe_prompt(checkpoint)  # a wrong tokenizer should fail before the long work
    if options.validate and not knows_newest_operators(ort := import_onnxruntime()):
        raise GarExportError(f"ONNX Runtime {ort.__version__} is too old to validate: {NEEDED}; or --no-validate")
    precision = options.precision
    if options.compat and precision is Precision.INT4:
        raise GarExportError("int4 weights in blocks need opset 21, so they have no compat decoder; take int8")
    calibration = calibration_options(checkpoint, precision, options.quantising) if precision.quantised else None
    progress.begin("Writing the graphs")
    captured = write_graphs(checkpoint, precision, options.compat)
    with _staged(destination, options.force) as folder:
        _check_space(folder, captured, checkpoint, precision)

        def write(forms: Mapping[str, Forms]) -> Manifest:
            return _write(checkpoint, folder, forms, options, progress)

        quantised = None
        if calibration is not None:
            quantised = write_quantised(
                checkpoint, folder, captured, precision, calibration, options.quantising.keep_float, options.max_tiles,
                options.validate, write, progress,
            )  # fmt: skip
        manifest = write(captured) if quantised is None else quantised.manifest
        report = None
        if options.validate:
            loss = quantised.loss if quantised else None
            report = validate(checkpoint, folder, manifest, precision, progress, loss, options.judged)
            if not report.ok:
                raise GarValidationError(report.failure(), report)
            manifest = replace(manifest, validation=report.to_json())
        _write_manifest(folder, manifest)
    remember_digests(destination, manifest)
    if options.remembered:
        remember_bundle(destination)
    size = sum(entry.bytes for entry in manifest.files.values())
    return Exported(destination, manifest, report, size, quantised.account if quantised else None)


def _write(
    checkpoint: Checkpoint, folder: Path, captured: Mapping[str, Forms], options: ExportOptions, progress: Progress
) -> Manifest:
    precision = options.precision
    files: dict[str, FileEntry] = {}
    table = _write_table(checkpoint, folder, precision, progress, files)
    graphs: dict[str, Graph] = {}
    engine_graphs: dict[str, dict[str, Graph]] = {}
    for name, forms in captured.items():
        graph, data_file = forms.main, f"{name}.onnx.data"
        stored: dict[str, Stored] = {}
        if graph.recipes:
            shared = table if name == "decoder" else {}
            progress.begin(f"Writing {data_file}", parameter_bytes(graph, shared))
            with DataFile(folder / data_file, progress.advance) as data:
                stored = stream_weights(graph, checkpoint.weights, precision.torch, data, shared)
                files[data_file] = data.entry()
        most = options.head_bytes if name == "decoder" else None
        graphs[name] = _write_graph(folder, f"{name}.onnx", graph, stored, most)
        for engine, form in forms.by_engine.items():
            # A processor's memory comes in pieces of any size.
            split = None if engine == GraphForm.CPU else most
            written = _write_graph(folder, f"{name}_{engine}.onnx", form, stored, split)
            engine_graphs.setdefault(engine, {})[name] = written
    (folder / describe.TOKENIZER).write_text(checkpoint.tokenizer_json, encoding="utf-8")
    (folder / describe.CHAT_TEMPLATE).write_text(checkpoint.chat_template, encoding="utf-8")
    for path in folder.iterdir():
        if path.name not in files and path.name != FILE:
            files[path.name] = FileEntry(path.stat().st_size, sha256(path))
    manifest = describe.make_manifest(
        checkpoint, precision, options.max_tiles, graphs, dict(sorted(files.items())), engine_graphs
    )
    _write_manifest(folder, manifest)
    return manifest


def _write_table(
    checkpoint: Checkpoint, folder: Path, precision: Precision, progress: Progress, files: dict[str, FileEntry]
) -> dict[str, Stored]:
    """Write the token table; where a tied head finds its parameters in it."""
    text = checkpoint.config.text
    path = folder / describe.TOKEN_TABLE
    rows = Recipe((TOKEN_TABLE,), lambda rows: rows).make(checkpoint.weights, torch.float32)
    progress.begin("Writing the token table", text.vocab * text.hidden * np.dtype(precision.table).itemsize)
    parts = {path: rows.to(precision.torch)}
    if precision.quantised:
        rounded = int8_per_channel(rows, axis=0)
        parts = {path: rounded.q, folder / describe.TOKEN_SCALES: rounded.scale}
    del rows
    stored: list[Stored] = []
    for part, tensor in parts.items():
        with DataFile(part, progress.advance) as data:
            stored.append(Stored(part, *data.append(tensor)))
            files[part.name] = data.entry()
    if not checkpoint.tied or precision is Precision.FP8:  # whose head is rounded otherwise than the table
        return {}
    names = [HEAD + ROUNDED, HEAD + SCALE] if precision.quantised else [HEAD]
    return dict(zip(names, stored, strict=True))


def _write_graph(
    folder: Path, name: str, graph: OpenGraph, stored: Mapping[str, Stored], head_bytes: int | None
) -> Graph:
    point_at(graph, stored)
    if head_bytes is not None:
        split_head(graph.model.graph, head_bytes)
    onnx.save(ir.to_proto(graph.model), str(folder / name))
    read = dict.fromkeys(place.path.name for place in stored.values())
    return describe.describe_graph(graph, (name, *read))


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
        kind = GarExportError if max_tiles is None else GarOptionError
        raise kind(
            f"{tiles} tiles make a prompt of over {features} tokens, the model takes {config.text.context}; "
            f"--max-tiles must be 1 to {most}"
        )


def _check_space(folder: Path, captured: Mapping[str, Forms], checkpoint: Checkpoint, precision: Precision) -> None:
    text = checkpoint.config.text
    weights = sum(parameter_bytes(forms.main) for forms in captured.values())
    shared = checkpoint.tied and precision is not Precision.FP8
    table = 0 if shared else text.vocab * text.hidden * np.dtype(precision.table).itemsize
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
