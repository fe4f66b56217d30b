"""Forms of the replay in an engine: the graph's own body, or the plugin in its place.

portable    the body's standard operators; needs nothing
plugin      the C++ plugin, compiled on the device from export/plugin; its library must be where the engine runs
aot         the ahead-of-time plugin, compiled while the engine is built; the engine carries the kernel

Both plugins register the same name: a process takes one of them, and builds no portable replay after that.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from gar_edge.runtime.engines.names import ReplayForm
from gar_edge.runtime.engines.roi_replay_plugin import is_registered, register_replay_plugin
from gar_edge.runtime.engines.roi_replay_plugin.kernel import SOURCES
from gar_edge.runtime.engines.tensorrt.installed import Library
from gar_edge.runtime.errors import GarBackendError
from gar_edge.runtime.files.digests import sha256

# The plugin as both forms register it: name, version, namespace.
_PLUGIN = ("RoiReplay", "1", "gar")


@dataclass(frozen=True)
class Replay:
    """A form of the replay. plugin: the C++ plugin's file; None for the other forms."""

    form: ReplayForm = ReplayForm.PORTABLE
    plugin: Path | None = None

    @classmethod
    def of(cls, form: ReplayForm | None, plugin: Path | None) -> Replay:
        """What was asked for; without a form, the C++ plugin where its library is named, else the portable body.

        `GarBackendError` where form and plugin contradict each other.
        """
        if form is None:
            form = ReplayForm.PORTABLE if plugin is None else ReplayForm.PLUGIN
        if form is ReplayForm.PLUGIN and plugin is None:
            raise GarBackendError("the C++ plugin is a library: name it with --plugin-library (export/plugin makes it)")
        if form is not ReplayForm.PLUGIN and plugin is not None:
            raise GarBackendError(f"--plugin-library belongs to --replay plugin, not to {form.value}")
        return cls(form, plugin)

    @property
    def is_plugin(self) -> bool:
        return self.form is not ReplayForm.PORTABLE

    def digest(self) -> str | None:
        """SHA-256 of what takes the body's place: the library, or the kernel's sources; None for the body itself."""
        if self.plugin is not None:
            return sha256(self.plugin)
        return _sources_digest() if self.form is ReplayForm.AOT else None

    def prepare(self, library: Library) -> None:
        """Make TensorRT's parser find this form; `GarBackendError` says what is missing where it cannot be had."""
        if not self.is_plugin:
            if not library.is_rtx and _is_known(library):
                raise GarBackendError(
                    "the replay plugin is loaded in this process, and TensorRT would take it instead of the portable "
                    "replay; build that in a process of its own (gar-engine build)"
                )
            return
        _refuse_rtx(library)
        if self.plugin is not None:
            load_plugin(library, self.plugin)
        else:
            register_replay_plugin()


def load_plugin(library: Library, path: Path) -> None:
    """Load the C++ plugin's library into TensorRT, once; `GarBackendError` where that cannot be."""
    _refuse_rtx(library)
    if is_registered():
        raise GarBackendError(f"{path}: the ahead-of-time replay plugin is registered in this process already")
    if _is_known(library):
        return
    if not path.is_file():
        raise GarBackendError(f"{path}: no such plugin library; export/plugin/README.md says how to compile it")
    library.trt.get_plugin_registry().load_library(str(path))
    said = library.reason()
    if not _is_known(library):
        raise GarBackendError(f"{path}: not a replay plugin for {library.title} ({said})")


def _is_known(library: Library) -> bool:
    known = library.trt.get_plugin_registry().get_creator(*_PLUGIN) is not None
    library.reason()  # TensorRT may log an error for a plugin that is not there; it is none of a later failure's
    return known


def _refuse_rtx(library: Library) -> None:
    if library.is_rtx:
        raise GarBackendError(f"{library.title} takes no plugins; build the portable replay (leave --replay out)")


def _sources_digest() -> str:
    digest = hashlib.sha256()
    for file in sorted(SOURCES.iterdir()):
        digest.update(f"{file.name}\0{sha256(file)}\0".encode())
    return digest.hexdigest()
