"""Engines that take their time."""

import time

import pytest

from gar_edge.runtime import Gar


def slow(gar: Gar, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Every run of the decoder takes so long at least."""
    bind = gar.pipeline.decoder.session.bind

    def slowed(*arguments: object) -> object:
        run = bind(*arguments)
        return lambda: (time.sleep(seconds), run())

    monkeypatch.setattr(gar.pipeline.decoder.session, "bind", slowed)
