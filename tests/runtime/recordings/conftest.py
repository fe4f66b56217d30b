"""A bag that tests of recordings share."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.bags import only_file
from helpers.drives import bag


@pytest.fixture(scope="module")
def mcap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, detections and label images, as one file."""
    return only_file(bag(tmp_path_factory.mktemp("drive") / "drive", "mcap", masks=True), ".mcap")
