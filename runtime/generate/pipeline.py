"""What generation takes: a bundle's graphs as functions, and its prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.bundle.bundle import Bundle
from gar_edge.runtime.bundle.manifest import Manifest
from gar_edge.runtime.engines.protocol import Backend, Buffer
from gar_edge.runtime.generate.guide import TokenGuide
from gar_edge.runtime.generate.prompt import PromptBuilder
from gar_edge.runtime.model.decoder import DecoderGraph
from gar_edge.runtime.model.vision import VisionRunner


@dataclass(frozen=True)
class Pipeline:
    """A loaded bundle on its engine. Nothing in it belongs to a single answer."""

    bundle: Bundle
    backend: Backend
    vision: VisionRunner
    decoder: DecoderGraph
    prompts: PromptBuilder
    guide: TokenGuide

    @classmethod
    def of(cls, bundle: Bundle, backend: Backend, vision: type[VisionRunner] = VisionRunner) -> Pipeline:
        """Load the graphs; `GarBackendError` where the engine refuses one. vision: what runs encoder and replay."""
        manifest = bundle.manifest
        return cls(
            bundle=bundle,
            backend=backend,
            vision=vision(backend, manifest),
            decoder=DecoderGraph(backend, manifest),
            prompts=PromptBuilder(
                manifest.prompt, manifest.dimensions.tile_tokens, bundle.tokenizer, bundle.chat_template
            ),
            guide=TokenGuide(
                bundle.tokenizer, vocabulary=manifest.dimensions.vocab, stop_tokens=manifest.prompt.stop_tokens
            ),
        )

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest

    def embed(self, ids: NDArray[np.int64]) -> Buffer:
        """The token table's rows [S,C] in the engine's memory."""
        embeds = self.backend.empty((len(ids), self.manifest.dimensions.hidden), self.decoder.dtype)
        embeds.write(self.bundle.embed(ids))
        return embeds
