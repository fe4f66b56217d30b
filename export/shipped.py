"""`python -m gar_edge.export.shipped [FOLDER]`: the gar-nano bundle that comes with the runtime, made anew.

An export in float32 whose parameters are stored as float16 wherever that loses nothing, which is nearly everywhere:
gar-nano's checkpoint is float16. Each is cast back when the graph is loaded, so answers are those of the plain export,
bit for bit, at half the size.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from gar_edge.calibration.qdq import store_as_half
from gar_edge.export.bundle_writer import ExportOptions, export_bundle
from gar_edge.export.progress import Silent
from gar_edge.models.checkpoint import open_checkpoint, shipped_checkpoint
from gar_edge.models.sizes import Size
from gar_edge.runtime.bundle.bundle import read_manifest
from gar_edge.runtime.bundle.manifest import FILE, FileEntry, Manifest
from gar_edge.runtime.bundle.shipped import NANO, SHIPPED
from gar_edge.runtime.files.digests import sha256

ALIGNMENT = 64  # bytes; a page for each of gar-nano's many short vectors would add a tenth
SHORT = 1024  # numbers; a cast of fewer takes more room than it saves


def write_shipped(folder: Path) -> Manifest:
    """Export gar-nano, store it at half the size in `folder`, which it replaces, and return its manifest."""
    checkpoint = open_checkpoint(shipped_checkpoint(Size.NANO), name=NANO)
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / NANO
        export_bundle(checkpoint, plain, ExportOptions(compat=True, remembered=False), Silent())
        shutil.rmtree(folder, ignore_errors=True)
        return store_compactly(plain, folder)


def store_compactly(plain: Path, folder: Path) -> Manifest:
    """Write a float32 bundle a second time, with float16 storage where that is exact."""
    manifest = read_manifest(plain)
    folder.mkdir(parents=True)
    for name in manifest.files:
        if not name.endswith((".onnx", ".data")):
            shutil.copyfile(plain / name, folder / name)
    table = np.fromfile(plain / manifest.token_table.file, np.float32)
    if _fits(table):
        table.astype(np.float16).tofile(folder / manifest.token_table.file)
        manifest = replace(manifest, token_table=replace(manifest.token_table, dtype="<f2"))
    for name, graph in manifest.graphs.items():
        forms = [graph, *(form[name] for form in manifest.engine_graphs.values() if name in form)]
        _store_graphs([plain / form.files[0] for form in forms], folder)
    files = {name: _entry(folder / name) for name in sorted(manifest.files)}
    manifest = replace(manifest, files=files)
    (folder / FILE).write_text(json.dumps(manifest.to_json(), indent=1) + "\n", encoding="utf-8")
    return manifest


def _store_graphs(files: Sequence[Path], folder: Path) -> None:
    """Write a graph and its other forms, which read the same parameters."""
    models = [ir.load(file) for file in files]
    values = {
        name: value.const_value.numpy()
        for name, value in models[0].graph.initializers.items()
        if isinstance(value.const_value, ir.ExternalTensor)
    }
    halved = [name for name, array in values.items() if array.size > SHORT and _fits(array)]
    data = f"{files[0].name}.data"
    stored = bytearray()
    places: dict[str, tuple[str, int, int]] = {}
    for name, array in values.items():
        const = models[0].graph.initializers[name].const_value
        assert isinstance(const, ir.ExternalTensor)
        location, offset = str(const.location), 0
        content = array.astype(np.float16 if name in halved else np.float32).tobytes()
        if location == data:
            stored += bytes(-len(stored) % ALIGNMENT)
            offset = len(stored)
            stored += content
        places[name] = location, offset, len(content)
    if stored:
        (folder / data).write_bytes(stored)
    for file, model in zip(files, models, strict=True):
        store_as_half(model, halved)
        for name, place in places.items():
            value = model.graph.initializers[name]
            assert value.dtype is not None
            value.const_value = ir.ExternalTensor(
                *place, value.dtype, shape=ir.Shape(values[name].shape), name=name, base_dir=folder
            )
        proto = ir.to_proto(model)
        proto.graph.ClearField("value_info")  # shapes within the graph, which every engine infers: 40 KB
        onnx.save(proto, str(folder / file.name))


def _fits(array: np.ndarray) -> bool:
    """Whether float16 holds these numbers without loss."""
    return array.dtype == np.float32 and bool((array.astype(np.float16) == array).all())


def _entry(file: Path) -> FileEntry:
    return FileEntry(file.stat().st_size, sha256(file))


def main(arguments: Iterable[str] = sys.argv[1:]) -> None:
    """Write it where the runtime looks for it, or into the folder that is named."""
    folder = Path(next(iter(arguments), SHIPPED))
    manifest = write_shipped(folder)
    print(f"{folder}: {manifest.name}, {sum(entry.bytes for entry in manifest.files.values()) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
