"""Where bundles live by default, and which one was exported last."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import platformdirs

from gar_edge.runtime.errors import GarBundleError
from gar_edge.runtime.files.atomic import write_whole

HOME = "GAR_EDGE_HOME"  # environment variable that replaces the per-user data directory
NOWHERE = Path(os.devnull, "gar-edge")  # beneath what is no folder: nothing is there, and nothing can be


def home() -> Path:
    """The per-user data directory (`$GAR_EDGE_HOME` where set).

    For a user without a home directory, `NOWHERE`: reading and writing there fail as on a disk that is gone.
    """
    if given := os.environ.get(HOME):
        return Path(given)
    try:
        found = Path(platformdirs.user_data_dir("gar-edge", appauthor=False))
    except (RuntimeError, KeyError):  # neither $HOME nor an entry for this user id
        return NOWHERE
    return found if found.is_absolute() else NOWHERE  # older platformdirs leave "~" standing


def default_bundle(name: str) -> Path:
    """Where a bundle of this name goes without `-o`; `GarBundleError` where the user has no home."""
    if home() == NOWHERE:
        raise GarBundleError(f"this user has no home directory to keep bundles in; say where with -o, or set {HOME}")
    return home() / "bundles" / name


def remember_bundle(folder: Path) -> None:
    """Note the bundle exported last, for `gar-run` without `--model`; a home that cannot be written to is a warning."""
    pointer = _pointer()
    try:
        write_whole(pointer, os.fsencode(folder.resolve()) + b"\n")
    except OSError as error:
        warnings.warn(
            f"{pointer.parent}: cannot note the last bundle ({error.strerror}); gar-run will need --model", stacklevel=2
        )


def last_bundle() -> Path | None:
    """The bundle exported last, which may be gone by now, or None where none was noted."""
    try:
        name = _pointer().read_bytes().rstrip(b"\r\n")
    except OSError:
        return None
    return Path(os.fsdecode(name)) if name else None


def _pointer() -> Path:
    return home() / "last-bundle"
