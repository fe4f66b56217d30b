"""What generation takes: a bundle's graphs as functions, and its prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

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

    def embed(self, ids: NDArray[np.int64], places: Mapping[int, Buffer] = MappingProxyType({})) -> Buffer:
        """Embeddings [S,C] in the engine's memory: `places` by where each begins, else the token table's rows.

        places: features [...,C], apart from one another, for runs of one token as the prompt builder made them.
        """
        hidden = self.manifest.dimensions.hidden
        embeds = self.backend.empty((len(ids), hidden), self.decoder.dtype)
        end = 0
        for begin, features in [*sorted(places.items()), (len(ids), None)]:
            if begin > end:
                embeds.rows(end, begin).write(self.bundle.embed(ids[end:begin]))
            if features is not None:
                rows = features.reshape(-1, hidden)
                end = begin + rows.shape[0]
                embeds.rows(begin, end).copy_from(rows)
        return embeds
