"""SHA-256 of files, computed once for each state of a file."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from gar_edge.runtime.files.atomic import write_whole
from gar_edge.runtime.files.paths import home


class KnownDigests:
    """Digests computed before, each with the state of its file, in the per-user directory."""

    def __init__(self, folder: Path) -> None:
        key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
        self._path = home() / "verified" / f"{key}.json"
        self._changed = False
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            entries = {}
        self._entries: dict[str, Any] = entries if isinstance(entries, dict) else {}

    def digest(self, name: str, path: Path, status: os.stat_result) -> str:
        """The file's SHA-256, computed only if its state is not the noted one."""
        entry = self._entries.get(name)
        if isinstance(entry, list) and entry[:-1] == _state(status):
            return str(entry[-1])
        digest = sha256(path)
        self.note(name, status, digest)
        return digest

    def note(self, name: str, status: os.stat_result, digest: str) -> None:
        self._entries[name] = [*_state(status), digest]
        self._changed = True

    def save(self) -> None:
        if not self._changed:
            return
        with suppress(OSError):  # a read-only home only costs the next opening some time
            write_whole(self._path, json.dumps(self._entries).encode())


def _state(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def sha256(path: Path) -> str:
    """A file's SHA-256 in hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()
