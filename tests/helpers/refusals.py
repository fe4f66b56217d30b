"""What a refused region says."""

from typing import Any

import pytest

from gar_edge.runtime.errors import GarMaskError


def refused(*parts: str) -> Any:
    """Expects a `GarMaskError` of one line with all these parts."""
    return pytest.raises(GarMaskError, match="(?s)^(?!.*\n)" + "".join(f"(?=.*{part})" for part in parts))
