"""Run an exported GAR bundle: numpy in, text out, no torch.

from gar_edge.runtime import Gar
scene = Gar.load("bundle").open("photo.jpg")
print(scene.describe("mask.png").text)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gar_edge.runtime.chat import Chat
    from gar_edge.runtime.clip import Clip, Followed
    from gar_edge.runtime.errors import (
        GarBackendError,
        GarBundleError,
        GarBusyError,
        GarError,
        GarImageError,
        GarMaskError,
        GarPromptError,
    )
    from gar_edge.runtime.gar import Gar
    from gar_edge.runtime.generate.answer import Answer, Reuse, Timings
    from gar_edge.runtime.generate.choosing import Choice, Choosing, ScoredChoice
    from gar_edge.runtime.generate.logprobs import Confidence, TokenLogprob
    from gar_edge.runtime.generate.options import Options
    from gar_edge.runtime.generate.stream import AnswerStream
    from gar_edge.runtime.live import Frame, LiveAnswers
    from gar_edge.runtime.regions import Box, Points, Scribble
    from gar_edge.runtime.scene import Scene

_HOMES = {
    "Answer": "generate.answer",
    "Reuse": "generate.answer",
    "Timings": "generate.answer",
    "AnswerStream": "generate.stream",
    "Choice": "generate.choosing",
    "Choosing": "generate.choosing",
    "ScoredChoice": "generate.choosing",
    "Confidence": "generate.logprobs",
    "TokenLogprob": "generate.logprobs",
    "Chat": "chat",
    "Clip": "clip",
    "Followed": "clip",
    "Frame": "live",
    "LiveAnswers": "live",
    "Box": "regions",
    "Points": "regions",
    "Scribble": "regions",
    "Gar": "gar",
    "Scene": "scene",
    "Options": "generate.options",
    "GarError": "errors",
    "GarBackendError": "errors",
    "GarBundleError": "errors",
    "GarBusyError": "errors",
    "GarImageError": "errors",
    "GarMaskError": "errors",
    "GarPromptError": "errors",
}

__all__ = [
    "Answer",
    "AnswerStream",
    "Box",
    "Chat",
    "Choice",
    "Choosing",
    "Clip",
    "Confidence",
    "Followed",
    "Frame",
    "Gar",
    "GarBackendError",
    "GarBundleError",
    "GarBusyError",
    "GarError",
    "GarImageError",
    "GarMaskError",
    "GarPromptError",
    "LiveAnswers",
    "Options",
    "Points",
    "Reuse",
    "Scene",
    "ScoredChoice",
    "Scribble",
    "Timings",
    "TokenLogprob",
]


def __getattr__(name: str) -> object:
    """Import on first use, so that `gar-run --help` need not wait for numpy and friends."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
