"""The packages of the extra `many`."""

from __future__ import annotations

from gar_edge.runtime.files.installed import require

PACKAGES = ("ray", "pyarrow")


def check_installed() -> None:
    """`GarError` that names the remedy where one is not there."""
    require(PACKAGES, "many", "what many workers need")
