"""Packages that are not there are named with what brings them."""

import pytest

from gar_edge.runtime.errors import GarError
from gar_edge.runtime.files.installed import require


def test_what_is_missing_is_named_with_the_extra() -> None:
    require(("json", "numpy"), "many", "what many workers need")
    with pytest.raises(
        GarError, match=r"^no_such_one, nor_this not installed; pip install 'gar-edge\[many\]' brings what"
    ):
        require(("json", "no_such_one", "nor_this"), "many", "what many workers need")
