"""TensorRT-RTX's kernels on disk: it compiles the last part of an engine where it runs, otherwise in every process."""

from __future__ import annotations

import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

from gar_edge.runtime.files.atomic import renamed


class RuntimeCache:
    """One file of compiled kernels, for all engines of a bundle on one GPU.

    Written after a context's first run, so that a process that is killed leaves its kernels behind, and once more when
    the cache is let go of or Python ends: TensorRT-RTX goes on specialising kernels while it runs. It is a cache: what
    does not fit is compiled again, and what cannot be written is not.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept = b""  # what the file holds, as far as it is of use
        self._cache: Any = None

    def attach(self, config: Any) -> None:
        """Give a context's runtime configuration the cache, which the first configuration makes."""
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            with suppress(OSError):
                content = self._file.read_bytes()
                if self._cache.deserialize(content):  # else of another GPU, driver or version, or no cache at all
                    self._kept = content
            weakref.finalize(self, _write, self._cache, self._file, self._kept)
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write the file if there is something new."""
        self._kept = _write(self._cache, self._file, self._kept)


def _write(cache: Any, file: Path, kept: bytes) -> bytes:
    """What the file then holds."""
    serialised = cache.serialize()
    content = kept if serialised is None else bytes(serialised)
    if content != kept:
        with suppress(OSError), renamed(file) as scratch:
            scratch.write_bytes(content)
    return content
