"""gar-nano, ready to run: the bundle that comes with the package, for whoever has exported none."""

from __future__ import annotations

from pathlib import Path

from gar_edge.runtime.files.paths import home, last_bundle

NANO = "gar-nano"  # as the manifest names its source
SHIPPED = Path(__file__).parents[1] / "nano_bundle"  # part of the installed package: read, never written to


def usual_bundle() -> Path:
    """The bundle to take where none is named: the one exported last, or else gar-nano."""
    return last_bundle() or SHIPPED


def scratch_folder(bundle: Path) -> Path:
    """Where what is made of a bundle is kept: in it, or in the per-user directory if it is part of the package."""
    return home() / "shipped" / SHIPPED.name if bundle.resolve() == SHIPPED.resolve() else bundle
