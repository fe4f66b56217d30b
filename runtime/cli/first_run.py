"""Before anything was exported: gar-nano, which comes with the package, so that the first command already answers."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from gar_edge.runtime.errors import GarBundleError

EXPORTER = "gar_edge.export"
NANO = "gar-nano"  # as the manifest names its source
ABOUT_NANO = (
    "This is gar-nano: it knows drawn shapes (as in examples/scene_1.png) and nothing else. "
    "For photographs: gar-export --size 1b"
)


def export_nano() -> None:
    """Export gar-nano to its default place, as the bundle exported last; the exporter's own words go to stderr.

    In a process of its own: the runtime needs nothing of what exporting needs. `GarBundleError` where the exporter is
    not installed, or fails.
    """
    missing = [name for name in (EXPORTER, "torch") if importlib.util.find_spec(name) is None]
    if missing:
        raise GarBundleError(
            "no bundle has been exported yet; name one with --model, or make one with gar-export "
            "(pip install 'gar-edge[export]')"
        )
    command = [sys.executable, "-m", f"{EXPORTER}.cli", "--size", "nano", "--no-validate", "--force"]
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        raise GarBundleError("exporting gar-nano failed, as said above; make a bundle with gar-export")
