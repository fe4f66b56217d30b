"""Where bundles live by default, and which one was exported last."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

HOME = "GAR_EDGE_HOME"  # environment variable that replaces the per-user data directory


def home() -> Path:
    """The per-user data directory (`$GAR_EDGE_HOME` where set)."""
    return Path(os.environ.get(HOME) or platformdirs.user_data_dir("gar-edge", appauthor=False))


def default_bundle(name: str) -> Path:
    """Where a bundle of this name goes without `-o`."""
    return home() / "bundles" / name


def remember_bundle(folder: Path) -> None:
    """Note the bundle exported last, for `gar-run` without `--model`."""
    _pointer().parent.mkdir(parents=True, exist_ok=True)
    _pointer().write_text(str(folder.resolve()) + "\n", encoding="utf-8")


def last_bundle() -> Path | None:
    """The bundle exported last, or None where there is none any more."""
    try:
        folder = Path(_pointer().read_text(encoding="utf-8").strip())
    except OSError:
        return None
    return folder if folder.is_dir() else None


def _pointer() -> Path:
    return home() / "last-bundle"
