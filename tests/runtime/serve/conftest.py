"""A server for a module's tests, and the same model without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed; pip install 'gar-edge[serve]'")

from helpers.serving import EXAMPLES, Running, serving

from gar_edge.runtime import Gar, Scene
from gar_edge.runtime.bundle.shipped import SHIPPED


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def direct() -> Iterator[Gar]:
    """What answers must equal: the model itself, that keeps nothing."""
    with Gar.load(SHIPPED, cache_bytes=0, threads=1) as gar:
        yield gar


@pytest.fixture(scope="module")
def scene(direct: Gar) -> Scene:
    return direct.open(EXAMPLES / "scene_1.png")


@pytest.fixture(scope="module")
def masks() -> dict[int, Path]:
    return {number: EXAMPLES / f"scene_1_mask_{number}.png" for number in range(5)}
