"""The packages of the extra `serve`."""

from __future__ import annotations

from gar_edge.runtime.files.installed import require

PACKAGES = ("fastapi", "uvicorn", "prometheus_client")


def check_installed() -> None:
    """`GarError` that names the remedy where one is not there."""
    require(PACKAGES, "serve", "what a server needs")
