"""A question about regions of an open picture, ready to be answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.engines.protocol import Buffer
from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.generate.answer import Answer, Reuse, StopWatch, Timings
from gar_edge.runtime.generate.reuse import encode_tiles
from gar_edge.runtime.generate.sampling import Options
from gar_edge.runtime.generate.transcript import Transcript
from gar_edge.runtime.images.preprocess import Tiles, cut_mask
from gar_edge.runtime.images.shape import mask_box

if TYPE_CHECKING:
    from gar_edge.runtime.gar import Gar


@dataclass(frozen=True)
class Request:
    """A prompt's token ids [S], the masks [H,W] of its regions, and `room`: how many tokens the answer may have."""

    ids: NDArray[np.int64]
    regions: Mapping[int, NDArray[np.bool_]]
    options: Options
    room: int

    @classmethod
    def of(
        cls,
        gar: Gar,
        ids: NDArray[np.int64],
        regions: Mapping[int, NDArray[np.bool_]],
        options: Options,
    ) -> Request:
        """`GarPromptError` where the prompt leaves no room for an answer."""
        longest, context = gar.decoder.longest, gar.manifest.dimensions.context
        if len(ids) >= longest:
            holder, larger = "the model takes", ""
            if longest < context:
                holder, larger = "the engine holds", f", or build another with gar-engine build --capacity {context}"
            raise GarPromptError(
                f"the prompt has {len(ids)} tokens, {holder} {longest}; lower --max-tiles (max_tiles){larger}"
            )
        return cls(ids, regions, options, min(options.max_new_tokens, longest - len(ids)))

    @property
    def positions(self) -> int:
        """Of the prompt and the longest answer."""
        return len(self.ids) + self.room

    def answer(self, gar: Gar, picture: Picture, transcript: Transcript, timings: Timings, reuse: Reuse) -> Answer:
        """What has been said, as far as it has been."""
        return Answer(
            text=transcript.text,
            tokens=tuple(transcript.tokens),
            finish_reason=transcript.reason or "cancelled",
            prompt_tokens=len(self.ids),
            grid=picture.tiles.grid,
            timings_ms=timings,
            model=gar.manifest.name,
            reuse=reuse,
        )

    def transcript(self, gar: Gar) -> Transcript:
        """An empty one for the answer."""
        return Transcript(gar.bundle.tokenizer, gar.manifest.prompt.stop_tokens, self.options, self.room)


@dataclass(frozen=True)
class Picture:
    """An open picture: its tiles, and the number under which their features are kept."""

    tiles: Tiles
    key: int


def embed_prompts(
    gar: Gar, picture: Picture, requests: Sequence[Request], watch: StopWatch, check: Callable[[], None]
) -> Iterator[tuple[Buffer, Reuse]]:
    """Embeddings [S,C] of whole prompts: table rows, with tile and replayed features in their places.

    All tiles that are missing are encoded together; each prompt is put together when its turn comes.
    """
    tiles, prompt = picture.tiles, gar.manifest.prompt
    with watch.stage("preprocess"):
        masks = [
            cut_mask(request.regions, tiles.grid, gar.manifest.preprocess, len(prompt.regions)) for request in requests
        ]
    with watch.stage("encode"):
        encoded = encode_tiles(gar.backend, gar.vision, gar.features, picture.key, tiles.pixels, masks, check)
    for request in requests:
        with watch.stage("encode"):
            features, fresh = next(encoded)
        with watch.stage("replay"):
            boxes = [mask_box(region) for region in request.regions.values()]
            replayed = gar.vision.replay(features, tiles.grid, boxes)
        with watch.stage("prefill"):
            embeds = embed_text(gar, request.ids)
            hidden = embeds.shape[1]
            _place(embeds, request.ids, prompt.image_token, features.reshape(-1, hidden))
            for index, number in enumerate(request.regions):
                tokens = replayed.rows(index, index + 1).reshape(-1, hidden)
                _place(embeds, request.ids, prompt.replay_tokens[number], tokens)
        yield embeds, Reuse(fresh, len(tiles.pixels) - fresh, len(request.ids), 0)


def embed_text(gar: Gar, ids: NDArray[np.int64]) -> Buffer:
    """The token table's rows [S,C]."""
    embeds = gar.backend.empty((len(ids), gar.manifest.dimensions.hidden), gar.decoder.dtype)
    embeds.write(gar.bundle.embed(ids))
    return embeds


def features_end(gar: Gar, ids: NDArray[np.int64]) -> int:
    """Behind the last image or replay token of a prompt: from there on it is text."""
    prompt = gar.manifest.prompt
    return 1 + int(np.flatnonzero(np.isin(ids, [prompt.image_token, *prompt.replay_tokens]))[-1])


def _place(embeds: Buffer, ids: NDArray[np.int64], token: int, features: Buffer) -> None:
    """Put features [N,C] where `token` stands; its N places are one run, as the prompt builder made them."""
    begin = int(np.argmax(ids == token))
    embeds.rows(begin, begin + features.shape[0]).copy_from(features)
