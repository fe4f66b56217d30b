"""An ONNX Runtime that seems too old for the standard decoder; tests/whole has one that is."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from gar_edge.runtime import Gar, GarBackendError
from gar_edge.runtime.engines.onnxruntime.newest_operators import knows_newest_operators


class Old:
    """The module, but for every model: it refuses them as 1.23.2 refuses opset 24."""

    SessionOptions = onnxruntime.SessionOptions

    def InferenceSession(self, *_: Any, **__: Any) -> None:  # noqa: N802 - ONNX Runtime's name
        raise RuntimeError("Current official support for domain ai.onnx is till opset 23.")


@pytest.fixture
def too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gar_edge.runtime.engines.choice.knows_newest_operators", lambda ort: False)


def test_this_one_knows_them_and_a_refusal_is_noticed() -> None:
    assert knows_newest_operators(onnxruntime)
    assert not knows_newest_operators(Old())


@pytest.mark.parametrize("backend", ["auto", "onnxruntime"])
@pytest.mark.usefixtures("too_old")
def test_the_compat_decoder_is_taken_with_one_warning(compat_bundle: Path, backend: str, picture: np.ndarray) -> None:
    with pytest.warns(UserWarning, match="too old for the standard decoder, so the compat one answers") as caught:
        gar = Gar.load(compat_bundle, backend=backend, threads=1)
    assert len(caught) == 1
    assert gar.pipeline.decoder.ports.appends
    mask = picture[..., 0] > 128
    with Gar.load(compat_bundle, decoder="compat", threads=1) as asked_for:
        assert gar.open(picture).describe(mask).tokens == asked_for.open(picture).describe(mask).tokens


@pytest.mark.usefixtures("too_old")
def test_asked_for_by_name_it_is_no_surprise(compat_bundle: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Gar.load(compat_bundle, decoder="compat", threads=1).close()


@pytest.mark.usefixtures("too_old")
def test_a_bundle_without_one_says_what_to_do(tiny_bundle: Path) -> None:
    with pytest.raises(GarBackendError, match=r"too old for .*tiny: opset 24 takes onnxruntime 1\.26.*--compat"):
        Gar.load(tiny_bundle)
