"""What tests of answers share: a GAR by the book beside the bundle of the same checkpoint, and gar-nano."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.examples import PICTURE
from helpers.reference_gar import Reference

from gar_edge.models.checkpoint import Checkpoint
from gar_edge.runtime import Gar
from gar_edge.runtime.bundle.shipped import SHIPPED
from gar_edge.runtime.scene import Scene


@pytest.fixture(scope="module")
def by_the_book(checkpoint: Checkpoint) -> Reference:
    return Reference(checkpoint)


@pytest.fixture(scope="module")
def gar(bundle: Path) -> Gar:
    return Gar.load(bundle)


@pytest.fixture(scope="module")
def nano() -> Gar:
    return Gar.load(SHIPPED)


@pytest.fixture
def scene(nano: Gar) -> Scene:
    """The first example, opened afresh."""
    return nano.open(PICTURE)
