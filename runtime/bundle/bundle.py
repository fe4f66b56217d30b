"""A bundle on disk: checked when opened, so that what runs is what was exported."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from gar_edge.runtime.bundle.manifest import FILE, SCHEMA, Graph, Manifest
from gar_edge.runtime.errors import GarBundleError
from gar_edge.runtime.files.digests import KnownDigests


@dataclass(frozen=True)
class Bundle:
    """An opened, verified bundle."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: str | Path) -> Bundle:
        """Read `gar.json` and verify every file's size and SHA-256.

        A digest is computed once per file and state: afterwards unchanged size, inode and times stand for it, so
        that opening gigabytes stays quick. `GarBundleError` says which file, what was expected, what was found.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        _verify(folder, manifest)
        return cls(folder, manifest)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        try:
            return Tokenizer.from_str((self.folder / self.manifest.tokenizer).read_text(encoding="utf-8"))
        except Exception as error:  # the tokenizers library raises bare Exception
            raise GarBundleError(f"{self.folder / self.manifest.tokenizer}: not a tokenizer ({error})") from None

    @cached_property
    def chat_template(self) -> str:
        return (self.folder / self.manifest.chat_template).read_text(encoding="utf-8")

    @cached_property
    def token_table(self) -> NDArray[Any]:
        """The table [vocab, hidden] as it is stored, memory-mapped read-only."""
        table, shape = self.manifest.token_table, self.manifest.dimensions
        path = self.folder / table.file
        return np.memmap(path, np.dtype(table.dtype), "r", shape=(shape.vocab, shape.hidden))

    @cached_property
    def _token_scales(self) -> NDArray[np.float32] | None:
        scales = self.manifest.token_table.scales
        return None if scales is None else np.fromfile(self.folder / scales, "<f2").astype(np.float32)

    def embed(self, ids: int | NDArray[np.int64]) -> NDArray[np.floating]:
        """Embeddings [..., hidden] of token ids."""
        rows, scales = self.token_table[ids], self._token_scales
        return rows if scales is None else rows * np.asarray(scales[ids])[..., None]

    def for_engine(self, engine: str) -> Bundle:
        """A view of the bundle whose manifest names the graphs that an engine should load."""
        return Bundle(self.folder, self.manifest.for_engine(engine))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle folder, its schema checked but not its files."""
    path = folder / FILE
    if not folder.is_dir():
        raise GarBundleError(f"{folder}: no such bundle; make one with gar-export, or name another with --model")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GarBundleError(f"{folder}: no {FILE}; this is not a bundle made by gar-export") from None
    except (OSError, ValueError) as error:
        raise GarBundleError(f"{path}: not readable as JSON ({error}); export the bundle again") from None
    schema = value.get("schema") if isinstance(value, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise GarBundleError(f"{path}: schema {schema} is newer than this gar-edge knows ({SCHEMA}); upgrade gar-edge")
    if schema != SCHEMA:
        raise GarBundleError(f"{path}: schema {schema!r}, expected {SCHEMA}; export the bundle again")
    try:
        manifest = Manifest.from_json(value)
        _check_meaning(manifest)
        return manifest
    except ValueError as error:
        raise GarBundleError(f"{folder}: {error}; export the bundle again") from None


def _check_meaning(manifest: Manifest) -> None:
    """ValueError for a manifest that is well-formed but cannot be run."""
    missing = {"encoder", "roi_replay", "decoder"} - manifest.graphs.keys()
    if missing:
        raise ValueError(f"{FILE}.graphs: no {', '.join(sorted(missing))}")
    for name, size in vars(manifest.dimensions).items():
        if size < 1:
            raise ValueError(f"{FILE}.dimensions.{name}: {size}, must be at least 1")
    forms = {"graphs": manifest.graphs}
    forms |= {f"engine_graphs.{engine}": graphs for engine, graphs in manifest.engine_graphs.items()}
    for where, graphs in forms.items():
        for name, graph in graphs.items():
            _check_pairs(graph, f"{FILE}.{where}.{name}")


def _check_pairs(graph: Graph, where: str) -> None:
    """ValueError where `aliases` or `appends` pair what is no output and input of the graph, or one of them twice."""
    inputs, outputs = ({port.name for port in ports} for ports in (graph.inputs, graph.outputs))
    for kind, pairs in (("aliases", graph.aliases), ("appends", graph.appends)):
        for output, source in pairs.items():
            if output not in outputs or source not in inputs:
                raise ValueError(f"{where}.{kind}: {output} -> {source}: no such output and input, or paired already")
            outputs.remove(output)
            inputs.remove(source)


def _verify(folder: Path, manifest: Manifest) -> None:
    forms = [manifest.graphs, *manifest.engine_graphs.values()]
    read = {name for graphs in forms for graph in graphs.values() for name in graph.files}
    read |= {manifest.token_table.file, manifest.tokenizer, manifest.chat_template}
    if manifest.token_table.scales is not None:
        read.add(manifest.token_table.scales)
    if unlisted := sorted(read - manifest.files.keys()):
        raise GarBundleError(f"{folder / FILE}: no SHA-256 of {', '.join(unlisted)}; export the bundle again")
    known = KnownDigests(folder)
    for name, expected in manifest.files.items():
        path = folder / name
        try:
            status = path.stat()
        except OSError:
            raise GarBundleError(f"{path}: missing from the bundle; export it again") from None
        if status.st_size != expected.bytes:
            raise GarBundleError(
                f"{path}: {status.st_size} bytes, expected {expected.bytes}; the file is truncated or altered, "
                "export the bundle again"
            )
        try:
            digest = known.digest(name, path, status)
        except OSError as error:
            raise GarBundleError(f"{path}: cannot be read ({error.strerror})") from None
        if digest != expected.sha256:
            raise GarBundleError(
                f"{path}: SHA-256 {digest[:12]}…, expected {expected.sha256[:12]}…; the file is altered, "
                "export the bundle again"
            )
    known.save()


def remember_digests(folder: Path, manifest: Manifest) -> None:
    """Note the digests of files just written, so that the first opening need not compute them again."""
    known = KnownDigests(folder)
    for name, entry in manifest.files.items():
        known.note(name, (folder / name).stat(), entry.sha256)
    known.save()
