"""Where bundles live by default, and which one was exported last."""

from __future__ import annotations

import os
import warnings
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
    """Note the bundle exported last, for `gar-run` without `--model`; a home that cannot be written to is a warning."""
    pointer = _pointer()
    scratch = pointer.with_name(f"{pointer.name}.{os.getpid()}")
    try:
        pointer.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(str(folder.resolve()) + "\n", encoding="utf-8")
        scratch.replace(pointer)
    except OSError as error:
        warnings.warn(
            f"{pointer.parent}: cannot note the last bundle ({error.strerror}); gar-run will need --model", stacklevel=2
        )


def last_bundle() -> Path | None:
    """The bundle exported last, which may be gone by now, or None where none was noted."""
    try:
        text = _pointer().read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return Path(text) if text else None


def _pointer() -> Path:
    return home() / "last-bundle"
