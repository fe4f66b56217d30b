"""Packages that only some commands need."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from gar_edge.runtime.errors import GarError


def require(packages: Sequence[str], extra: str, purpose: str) -> None:
    """`GarError` that names the extra where one of the packages is not there."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise GarError(f"{', '.join(missing)} not installed; pip install 'gar-edge[{extra}]' brings {purpose}")
