"""Input spoilt on purpose, and the one line with which it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gar_edge.models.checkpoint import open_checkpoint
from gar_edge.runtime.bundle.bundle import Bundle
from gar_edge.runtime.errors import GarBundleError, GarCheckpointError, GarError


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def edit_json(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    edit(value)
    write_json(path, value)


def edit_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Edit the weights of a checkpoint in one file."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def one_line(error: pytest.ExceptionInfo[GarError], *parts: str) -> str:
    """The error's text, after checking that it is one line and holds these parts."""
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text
    return text


def refused_bundle(folder: Path, *parts: str) -> None:
    """Check that the bundle is refused with one line that begins with its folder and holds these parts."""
    with pytest.raises(GarBundleError) as error:
        Bundle.open(folder)
    assert one_line(error, *parts).startswith(str(folder))


def refused_checkpoint(folder: Path, *parts: str) -> str:
    """The one line with which the checkpoint is refused; it begins with the folder and holds these parts."""
    with pytest.raises(GarCheckpointError) as error:
        open_checkpoint(folder)
    text = one_line(error, *parts)
    assert text.startswith(str(folder))
    return text
