"""Engines on disk, in `engines/` of their bundle; those of the bundle in the package, in the per-user directory.

    GRAPH-ENGINE-KEY.engine       what TensorRT serialised
    GRAPH-ENGINE-KEY.json         its record: what it was built from, with what and for what
    timing-VERSION-DEVICE.cache   TensorRT's kernel timings; the next build of the same version and GPU reads them
    kernels-VERSION-DEVICE.cache  TensorRT-RTX's compiled kernels; the next process with that version and GPU reads them

KEY is a digest of the recipe, that is of everything the engine follows from. Files are written under a temporary name
and renamed; an engine without a record does not exist.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gar_edge.runtime.bundle.manifest import Manifest
from gar_edge.runtime.bundle.shipped import scratch_folder
from gar_edge.runtime.engines.cuda.api import Device
from gar_edge.runtime.engines.tensorrt.plan import EnginePlan
from gar_edge.runtime.errors import GarBackendError
from gar_edge.runtime.files.atomic import renamed, sweep
from gar_edge.runtime.files.validated import validated

FOLDER = "engines"


@dataclass(frozen=True)
class EngineRecipe:
    """What an engine follows from: two of equal recipe are the same.

    files: SHA-256 of the graph and its weights, by name. engine, version: which TensorRT. replay: the form of the
    replay, by `ReplayForm`'s value; None for other graphs. plugin: SHA-256 of the plugin's library or sources, or None
    for the portable body.
    """

    graph: str
    files: Mapping[str, str]
    engine: str
    version: str
    device: Device
    plan: EnginePlan
    replay: str | None = None
    plugin: str | None = None

    def key(self) -> str:
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class EngineRecord:
    """An engine that was built. build_seconds: from reading the graph to the engine's bytes.

    plugin_file: the C++ plugin's library, which it must be loaded with. system: a Jetson's release, by `l4t_release`.
    """

    recipe: EngineRecipe
    bytes: int
    build_seconds: float
    created_by: str
    plugin_file: str | None = None
    system: str | None = None


@dataclass(frozen=True)
class Machine:
    """What engines run on: a TensorRT and a GPU."""

    engine: str
    version: str
    device: Device


def misfit(record: EngineRecord, manifest: Manifest, machine: Machine) -> str | None:
    """Why an engine cannot be used here, in a few words; None where it can."""
    recipe = record.recipe
    if recipe.engine != machine.engine:
        return f"built for {recipe.engine}, not {machine.engine}"
    if recipe.version != machine.version:
        return f"built by version {recipe.version}, here is {machine.version}"
    if recipe.device != machine.device:
        return f"built for {recipe.device}, here is {machine.device}"
    if any(
        name not in manifest.files or manifest.files[name].sha256 != digest for name, digest in recipe.files.items()
    ):
        return "built from other graphs than this bundle's"
    return None


class Store:
    """The engines of one bundle."""

    def __init__(self, bundle: Path) -> None:
        self.folder = scratch_folder(bundle) / FOLDER

    def engine_file(self, recipe: EngineRecipe) -> Path:
        return self.folder / f"{recipe.graph}-{recipe.engine}-{recipe.key()}.engine"

    def timing_cache(self, machine: Machine) -> Path:
        return self._cache("timing", machine.version, machine.device)

    def runtime_cache(self, version: str, device: Device) -> Path:
        return self._cache("kernels", version, device)

    def records(self) -> list[EngineRecord]:
        """All whole engines, the newest first."""
        files = sorted(self.folder.glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
        found = [record for file in files if (record := _read(file)) is not None]
        return [record for record in found if self._is_whole(record)]

    def get(self, recipe: EngineRecipe) -> EngineRecord | None:
        """The engine of exactly this recipe."""
        record = _read(self.engine_file(recipe).with_suffix(".json"))
        return record if record is not None and self._is_whole(record) else None

    def put(self, record: EngineRecord, engine: Any) -> None:
        """Write an engine (a buffer of bytes) and its record; nothing is left behind where that fails."""
        path = self.engine_file(record.recipe)
        with writable(self.folder):
            with renamed(path) as scratch, scratch.open("wb") as file:
                file.write(engine)
            with renamed(path.with_suffix(".json")) as scratch:
                scratch.write_text(json.dumps(dataclasses.asdict(record), indent=1) + "\n", encoding="utf-8")

    def _cache(self, what: str, version: str, device: Device) -> Path:
        name = f"{version}-{device.name}-{device.compute_capability}"
        return self.folder / f"{what}-{''.join(c if c.isalnum() or c in '.-' else '_' for c in name)}.cache"

    def _is_whole(self, record: EngineRecord) -> bool:
        path = self.engine_file(record.recipe)
        return path.is_file() and path.stat().st_size == record.bytes


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Make a folder and write into it; `GarBackendError` where the disk refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        yield
    except OSError as error:
        raise GarBackendError(
            f"{folder}: engines cannot be written ({error.strerror}); copy the bundle to where there is room"
        ) from None


def _read(file: Path) -> EngineRecord | None:
    """A record, or None for what is none (a file cut off, or of another version of this format)."""
    try:
        return validated(EngineRecord, json.loads(file.read_text(encoding="utf-8")), file.name)
    except (OSError, ValueError):
        return None
