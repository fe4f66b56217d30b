"""Packages that are not there are named with what brings them."""

from __future__ import annotations

import re
from importlib.metadata import requires

import pytest

from gar_edge.runtime.errors import GarError
from gar_edge.runtime.files.installed import require
from gar_edge.runtime.label.needs import PACKAGES as MANY
from gar_edge.runtime.serve.needs import PACKAGES as SERVE


def test_what_is_missing_is_named_with_the_extra() -> None:
    require(("json", "numpy"), "many", "what many workers need")
    with pytest.raises(
        GarError, match=r"^no_such_one, nor_this not installed; pip install 'gar-edge\[many\]' brings what"
    ):
        require(("json", "no_such_one", "nor_this"), "many", "what many workers need")


@pytest.mark.parametrize(("extra", "packages"), [("many", MANY), ("serve", SERVE)])
def test_an_extra_brings_what_its_command_asks_for(extra: str, packages: tuple[str, ...]) -> None:
    """Else who follows the advice is given it again."""
    declared = [line for line in requires("gar-edge") or [] if re.search(f"extra == ['\"]{extra}['\"]", line)]
    names = {re.split(r"[^\w.-]", line, maxsplit=1)[0].replace("-", "_") for line in declared}
    assert set(packages) <= names
