"""The packages of the extra `serve`."""

from __future__ import annotations

from importlib.util import find_spec

from gar_edge.runtime.errors import GarError

PACKAGES = ("fastapi", "uvicorn", "prometheus_client")


def check_installed() -> None:
    """`GarError` that names the remedy where one is not there."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise GarError(f"{', '.join(missing)} not installed; pip install 'gar-edge[serve]' brings what a server needs")
