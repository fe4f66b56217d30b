"""The public face: load a bundle, open a picture, ask about its regions."""

from __future__ import annotations

import time
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.answer import Answer, FinishReason, StopWatch
from gar_edge.runtime.backend import Backend, Buffer
from gar_edge.runtime.bundle import Bundle
from gar_edge.runtime.decode import PREFILL_CHUNK, DecoderRunner, TokenSequence
from gar_edge.runtime.encode import VisionRunner
from gar_edge.runtime.errors import GarBackendError, GarBundleError, GarMaskError, GarPromptError
from gar_edge.runtime.images import ImageLike, MaskLike, fit_mask, load_image, load_mask, mask_box
from gar_edge.runtime.onnxruntime_backend import OnnxRuntimeBackend
from gar_edge.runtime.paths import last_bundle
from gar_edge.runtime.preprocess import Tiles, cut_mask, cut_tiles
from gar_edge.runtime.prompt import PromptBuilder
from gar_edge.runtime.sampling import Options, Sampler
from gar_edge.runtime.text import TextStream

BACKENDS = ("auto", "onnxruntime")
DEFAULT = Options()


class Gar:
    """A loaded model. Threads may share it: every answer has a cache and buffers of its own."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.backend = backend
        self.vision = VisionRunner(backend, self.manifest)
        self.decoder = DecoderRunner(backend, self.manifest)
        self.prompts = PromptBuilder(
            self.manifest.prompt, self.manifest.dimensions.tile_tokens, bundle.tokenizer, bundle.chat_template
        )

    @classmethod
    def load(cls, bundle: str | Path | None = None, backend: str = "auto", threads: int = 0) -> Gar:
        """Load a bundle folder made by gar-export; None takes the one exported last.

        backend: "auto" or "onnxruntime". threads: processor threads per graph, 0 for all cores.
        Raises `GarBundleError` for a damaged or missing bundle, `GarBackendError` for an engine that is not there.
        """
        if backend not in BACKENDS:
            raise GarBackendError(f"backend {backend!r} is unknown; choose from {', '.join(BACKENDS)}")
        folder = bundle if bundle is not None else last_bundle()
        if folder is None:
            raise GarBundleError("no bundle has been exported yet; make one with gar-export, or name one with --model")
        opened = Bundle.open(folder)
        return cls(opened, OnnxRuntimeBackend(opened.folder, opened.manifest, threads))

    def open(self, image: ImageLike, max_tiles: int | None = None) -> Scene:
        """Open a picture: a path, a Pillow image, or RGB uint8 [H,W,3]. `max_tiles` replaces the bundle's limit."""
        begin = time.perf_counter()
        dims = self.manifest.dimensions
        most = dims.context // dims.tile_tokens - 2  # beside the thumbnail and one region
        if max_tiles is not None and max_tiles > most:
            raise GarPromptError(f"max_tiles {max_tiles} would overflow the model's context; at most {most} fit")
        tiles = cut_tiles(load_image(image), self.manifest.preprocess, max_tiles)
        return Scene(self, tiles, (time.perf_counter() - begin) * 1e3)


class Scene:
    """A picture cut into tiles, ready for questions about its regions."""

    def __init__(self, gar: Gar, tiles: Tiles, preprocess_ms: float) -> None:
        self._gar = gar
        self.tiles = tiles
        self._preprocess_ms = preprocess_ms
        self.grid = tiles.grid

    def describe(self, mask: MaskLike, region: int | None = None, options: Options = DEFAULT) -> Answer:
        """Describe one region in detail. `region` is its number in the prompt (default: the released demo's, 1)."""
        number = self._gar.manifest.prompt.default_region if region is None else region
        return self.stream(None, {number: mask}, options).finish()

    def ask(self, question: str, masks: Mapping[int, MaskLike], options: Options = DEFAULT) -> Answer:
        """Ask about one to five regions; the question names each as `<PromptK>`, K being its key in `masks`."""
        return self.stream(question, masks, options).finish()

    def describe_all(self, masks: Sequence[MaskLike], options: Options = DEFAULT) -> list[Answer]:
        """Describe several regions, each on its own, in order."""
        return [self.describe(mask, options=options) for mask in masks]

    def stream(self, question: str | None, masks: Mapping[int, MaskLike], options: Options = DEFAULT) -> AnswerStream:
        """The same, piece by piece: iterate over the text, then `finish()` for the answer.

        Masks are paths, Pillow images or [H,W] arrays; one of another size than the picture is resized by nearest
        neighbour, with a warning. `GarMaskError` and `GarPromptError` are raised here, before anything is computed.
        """
        if not isinstance(masks, Mapping) or not all(isinstance(number, int) for number in masks):
            raise GarPromptError("masks must be a mapping of region numbers to masks, e.g. {0: mask}")
        numbers = sorted(masks)
        self._gar.prompts.check(question, numbers)
        watch = StopWatch()
        with watch.stage("preprocess"):
            regions = {number: self._region(number, masks[number]) for number in numbers}
        # The picture's own preprocessing counts for the first answer about it only.
        opening, self._preprocess_ms = self._preprocess_ms, 0.0
        return AnswerStream(self._gar, self.tiles, question, regions, options, watch, opening)

    def _region(self, number: int, mask: MaskLike) -> NDArray[np.bool_]:
        try:
            region = load_mask(mask)
            mask_box(region)
        except GarMaskError as error:
            raise GarMaskError(f"region {number}: {error}") from None
        size, (height, width) = (self.tiles.width, self.tiles.height), region.shape
        if (width, height) != size:
            warnings.warn(
                f"region {number}: mask is {width}x{height}, the image {size[0]}x{size[1]}: "
                "resized by nearest neighbour",
                stacklevel=3,
            )
            region = fit_mask(region, *size)
            if not region.any():
                raise GarMaskError(f"region {number}: nothing is left of the mask at the image's size")
        return region


class AnswerStream:
    """An answer in the making: iterating yields text as soon as it is certain."""

    def __init__(
        self,
        gar: Gar,
        tiles: Tiles,
        question: str | None,
        regions: Mapping[int, NDArray[np.bool_]],
        options: Options,
        watch: StopWatch,
        preprocess_ms: float,
    ) -> None:
        self._gar = gar
        self._tiles = tiles
        self._regions = regions
        self._options = options
        self._watch = watch
        self._preprocess_ms = preprocess_ms
        self._ids = gar.prompts.build(question, list(regions), len(tiles.pixels))
        context = gar.manifest.dimensions.context
        if len(self._ids) >= context:
            raise GarPromptError(
                f"the prompt has {len(self._ids)} tokens, the model takes {context}; lower --max-tiles (max_tiles)"
            )
        self._room = min(options.max_new_tokens, context - len(self._ids))
        self._tokens: list[int] = []
        self._pieces: list[str] = []
        self._reason: FinishReason = "cancelled"  # until the end says otherwise
        self._failure: Exception | None = None
        self._timings = watch.timings(preprocess_ms)
        self._text: Generator[str] = self._generate()

    def __iter__(self) -> Iterator[str]:
        return self._text

    def close(self) -> None:
        """Stop generating; `finish()` then returns what there is, with finish_reason "cancelled"."""
        self._text.close()

    def finish(self) -> Answer:
        """Wait for the rest and return the whole answer; raises again what iterating raised."""
        for _ in self._text:
            pass
        if self._failure is not None:
            raise self._failure
        return Answer(
            text="".join(self._pieces),
            tokens=tuple(self._tokens),
            finish_reason=self._reason,
            prompt_tokens=len(self._ids),
            grid=self._tiles.grid,
            timings_ms=self._timings,
            model=self._gar.manifest.name,
        )

    def _generate(self) -> Generator[str]:
        text = TextStream(self._gar.bundle.tokenizer, self._options.stop)
        reason: FinishReason = "length"
        try:
            for token in self._generate_tokens():
                self._tokens.append(token)
                if token in self._gar.manifest.prompt.stop_tokens:
                    reason = "stop"
                    break
                yield from self._piece(text.push(token))
                if text.stopped:
                    reason = "stop"
                    break
            yield from self._piece(text.finish())
            self._reason = reason
        except _Cancelled:
            yield from self._piece(text.finish())
        except Exception as error:
            self._failure = error
            raise
        finally:
            self._timings = self._watch.timings(self._preprocess_ms)

    def _piece(self, text: str) -> Iterator[str]:
        if text:
            self._pieces.append(text)
            yield text

    def _generate_tokens(self) -> Iterator[int]:
        sampler = Sampler(self._options)
        table = self._gar.bundle.token_table
        logits, sequence = self._prefill()
        for count in range(1, self._room + 1):
            self._check_cancelled()
            token = sampler(logits)
            self._watch.mark("first_token")
            yield token
            if count < self._room:
                with self._watch.stage("decode"):
                    logits = sequence.step(table[token])

    def _prefill(self) -> tuple[NDArray[np.float32], TokenSequence]:
        """Encode, replay and prefill in chunks."""
        embeds = self._embed()
        sequence = self._gar.decoder.start(len(self._ids) + self._room)
        logits = np.empty(0, np.float32)
        for begin in range(0, len(self._ids), PREFILL_CHUNK):
            self._check_cancelled()
            with self._watch.stage("prefill"):
                logits = sequence.prefill(embeds.rows(begin, min(begin + PREFILL_CHUNK, len(self._ids))))
        return logits, sequence

    def _embed(self) -> Buffer:
        """The prompt's embeddings [S,C]: table rows, with tile and replayed features in their places."""
        gar, prompt = self._gar, self._gar.manifest.prompt
        with self._watch.stage("preprocess"):
            mask = cut_mask(self._regions, self._tiles.grid, gar.manifest.preprocess, len(prompt.regions))
        with self._watch.stage("encode"):
            features = gar.vision.encode(self._tiles.pixels, mask, self._check_cancelled)
        with self._watch.stage("replay"):
            boxes = [mask_box(region) for region in self._regions.values()]
            replayed = gar.vision.replay(features, self._tiles.grid, boxes)
        with self._watch.stage("prefill"):
            hidden = gar.manifest.dimensions.hidden
            embeds = gar.backend.empty((len(self._ids), hidden), gar.decoder.dtype)
            embeds.write(gar.bundle.token_table[self._ids])
            _place(embeds, self._ids, prompt.image_token, features.reshape(-1, hidden))
            for index, number in enumerate(self._regions):
                tokens = replayed.rows(index, index + 1).reshape(-1, hidden)
                _place(embeds, self._ids, prompt.replay_tokens[number], tokens)
        return embeds

    def _check_cancelled(self) -> None:
        if self._options.cancel is not None and self._options.cancel.is_set():
            raise _Cancelled


class _Cancelled(Exception):  # noqa: N818 - not an error: the caller's wish
    """The options' event was set."""


def _place(embeds: Buffer, ids: NDArray[np.int64], token: int, features: Buffer) -> None:
    """Put features [N,C] where `token` stands; its N places are one run, as the prompt builder made them."""
    begin = int(np.argmax(ids == token))
    embeds.rows(begin, begin + features.shape[0]).copy_from(features)
