"""The public face: load a bundle, open a picture, ask about its regions."""

from __future__ import annotations

import itertools
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.bundle.bundle import Bundle
from gar_edge.runtime.chat import Chat
from gar_edge.runtime.engines.build_progress import Watch
from gar_edge.runtime.engines.choice import open_backend
from gar_edge.runtime.engines.protocol import Backend
from gar_edge.runtime.errors import GarBackendError, GarBundleError, GarPromptError
from gar_edge.runtime.files.paths import last_bundle
from gar_edge.runtime.generate.answer import Answer, StopWatch
from gar_edge.runtime.generate.batch import BatchAnswers
from gar_edge.runtime.generate.prompt import PromptBuilder
from gar_edge.runtime.generate.request import Picture as PromptPicture
from gar_edge.runtime.generate.request import Request
from gar_edge.runtime.generate.reuse import FeatureCache, KeptSequence
from gar_edge.runtime.generate.sampling import Options
from gar_edge.runtime.generate.stream import AnswerStream
from gar_edge.runtime.images.loading import ImageLike, Picture, load_picture
from gar_edge.runtime.images.preprocess import Tiles, cut_tiles
from gar_edge.runtime.model.decoder import DecoderRunner
from gar_edge.runtime.model.vision import VisionRunner
from gar_edge.runtime.regions.find import find_mask
from gar_edge.runtime.regions.kinds import RegionLike

BATCH = 8
CACHE_BYTES = 256 << 20  # of tile features; a 1B tile takes 2 MiB in fp32
DEFAULT = Options()


class Gar:
    """A loaded model. Threads may share it: every answer has a cache and buffers of its own."""

    def __init__(self, bundle: Bundle, backend: Backend, cache_bytes: int = CACHE_BYTES, batch: int = BATCH) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.backend = backend
        self.vision = VisionRunner(backend, self.manifest)
        self.decoder = DecoderRunner(backend, self.manifest)
        self.features = FeatureCache(cache_bytes)
        self.kept = KeptSequence()
        self.most_at_once = batch if self.decoder.batches else 1
        self._scenes = itertools.count()
        self.prompts = PromptBuilder(
            self.manifest.prompt, self.manifest.dimensions.tile_tokens, bundle.tokenizer, bundle.chat_template
        )

    @classmethod
    def load(
        cls,
        bundle: str | Path | None = None,
        backend: str = "auto",
        threads: int = 0,
        cache_bytes: int = CACHE_BYTES,
        decoder: str = "standard",
        batch: int = BATCH,
        watch: Watch = lambda step: None,
    ) -> Gar:
        """Load a bundle folder made by gar-export; None takes the one exported last.

        backend: "auto", "onnxruntime", "cuda" (ONNX Runtime on a GPU), "tensorrt" or "tensorrt_rtx"; "auto" takes
        TensorRT, else "cuda", where a GPU, the library and the bundle allow it, else "onnxruntime".
        threads: processor threads per graph, 0 for all cores ("onnxruntime" only).
        cache_bytes: memory for features of open scenes' tiles, over all scenes.
        batch: most questions that are answered side by side, where several are asked at once; each needs a KV cache.
        decoder: "standard", or "compat" for the graph that engines of opset 20 take (`gar-export --compat`).
        watch: called with each step where engines must be built first, which can take minutes; it stops the build by
        raising.
        Raises `GarBundleError` for a damaged or missing bundle, `GarBackendError` for an engine that is not there.
        """
        folder = bundle if bundle is not None else last_bundle()
        if folder is None:
            raise GarBundleError("no bundle has been exported yet; make one with gar-export, or name one with --model")
        return cls(*open_backend(Bundle.open(folder), backend, decoder, threads, watch), cache_bytes, batch)

    def __enter__(self) -> Gar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up engines, caches and, on a GPU, their memory; whatever is asked afterwards raises `GarBackendError`.

        Answers in the making in other threads end with that error too: cancel them first.
        """
        self.features.close()
        self.kept.close()
        self.backend = self.vision = self.decoder = _Closed()  # type: ignore[assignment]

    def open(self, image: ImageLike, max_tiles: int | None = None) -> Scene:
        """Open a picture: a path, a Pillow image, or RGB uint8 [H,W,3]. `max_tiles` replaces the bundle's limit."""
        begin = time.perf_counter()
        most = self.decoder.longest // self.manifest.dimensions.tile_tokens - 2  # beside the thumbnail and one region
        built = self.vision.most_tiles
        if max_tiles is not None and max_tiles > most:
            raise GarPromptError(f"max_tiles {max_tiles} would overflow the model's context; at most {most} fit")
        if max_tiles is not None and built is not None and max_tiles > built:
            raise GarPromptError(
                f"max_tiles {max_tiles} is more than the engines were built for ({built}); "
                f"gar-engine build --max-tiles {max_tiles} builds others"
            )
        if max_tiles is None and built is not None:
            max_tiles = min(built, self.manifest.preprocess.max_tiles)
        picture = load_picture(image)
        tiles = cut_tiles(picture.pixels, self.manifest.preprocess, max_tiles)
        return Scene(self, picture, tiles, next(self._scenes), (time.perf_counter() - begin) * 1e3)


class Scene:
    """A picture cut into tiles, ready for questions about its regions.

    Another region encodes only the thumbnail and the tiles that its mask or the earlier one touches; another question
    about the same regions prefills only what differs. Both are exact, and `Answer.reuse` counts them.
    """

    def __init__(self, gar: Gar, picture: Picture, tiles: Tiles, key: int, preprocess_ms: float) -> None:
        self._gar = gar
        self.image = picture.pixels
        self.turn = picture.turn
        self.tiles = tiles
        self._preprocess_ms = preprocess_ms
        self._picture = PromptPicture(tiles, key)
        self.grid = tiles.grid
        weakref.finalize(self, gar.features.drop, key)
        weakref.finalize(self, gar.kept.drop, key)

    def describe(self, mask: RegionLike, region: int | None = None, options: Options = DEFAULT) -> Answer:
        """Describe one region in detail. `region` is its number in the prompt (default: the released demo's, 1)."""
        number = self._gar.manifest.prompt.default_region if region is None else region
        return self.stream(None, {number: mask}, options).finish()

    def ask(self, question: str, masks: Mapping[int, RegionLike], options: Options = DEFAULT) -> Answer:
        """Ask about one to five regions; the question names each as `<PromptK>`, K being its key in `masks`."""
        return self.stream(question, masks, options).finish()

    def describe_all(self, masks: Sequence[RegionLike], options: Options = DEFAULT) -> list[Answer]:
        """Describe several regions, each on its own but computed together; answers in the masks' order."""
        number = self._gar.manifest.prompt.default_region
        answers = dict(self.answer_all([(None, {number: mask}) for mask in masks], options))
        return [answers[index] for index in range(len(masks))]

    def answer_all(
        self, questions: Sequence[tuple[str | None, Mapping[int, RegionLike]]], options: Options = DEFAULT
    ) -> Iterator[tuple[int, Answer]]:
        """Answer several questions side by side, each with the masks of its regions, as in `stream`.

        Yields each answer with its question's index as soon as it is complete. `Gar.load(batch=…)` and the free memory
        limit how many are in the making at once. Errors are raised here, before anything is computed.
        """
        watch = StopWatch()
        requests = [self._request(question, masks, options, watch) for question, masks in questions]
        opening = self._take_opening()
        if min(len(requests), self._gar.most_at_once) > 1:
            return iter(BatchAnswers(self._gar, self._picture, requests, options, watch, opening))
        streams = (AnswerStream(self._gar, self._picture, request, StopWatch(), 0.0) for request in requests)
        return ((index, stream.finish()) for index, stream in enumerate(streams))

    def stream(self, question: str | None, masks: Mapping[int, RegionLike], options: Options = DEFAULT) -> AnswerStream:
        """The same, piece by piece: iterate over the text, then `finish()` for the answer.

        Masks are paths, Pillow images or [H,W] arrays; one of another size, but the picture's shape, is resized by
        nearest neighbour, with a warning. A `Box`, `Points` or `Scribble` stands for the mask that GrabCut makes of it,
        and whatever else `find_mask` takes may stand for a mask too. `GarMaskError` and `GarPromptError` are raised
        here, before anything is computed.
        """
        watch = StopWatch()
        request = self._request(question, masks, options, watch)
        return AnswerStream(self._gar, self._picture, request, watch, self._take_opening())

    def chat(self, masks: Mapping[int, RegionLike], options: Options = DEFAULT) -> Chat:
        """Begin a conversation about regions: each question may build on the answers before it."""
        watch = StopWatch()
        regions = self._regions(masks, watch)
        return Chat(self._gar, self._picture, regions, options, self._take_opening() + watch["preprocess"])

    def _request(
        self, question: str | None, masks: Mapping[int, RegionLike], options: Options, watch: StopWatch
    ) -> Request:
        self._gar.prompts.check(question, _numbers(masks))
        regions = self._regions(masks, watch)
        ids = self._gar.prompts.build(question, list(regions), len(self.tiles.pixels))
        return Request.of(self._gar, ids, regions, options)

    def _regions(self, masks: Mapping[int, RegionLike], watch: StopWatch) -> dict[int, NDArray[np.bool_]]:
        """Masks at the picture's size by region number, in the numbers' order."""
        with watch.stage("preprocess"):
            return {
                number: find_mask(masks[number], self.image, name=f"region {number}", turn=self.turn)
                for number in _numbers(masks)
            }

    def _take_opening(self) -> float:
        """The picture's own preprocessing counts for the first answer about it only."""
        opening, self._preprocess_ms = self._preprocess_ms, 0.0
        return opening


class _Closed:
    """Stands where the engines were."""

    def __getattr__(self, name: str) -> NoReturn:
        raise GarBackendError("this Gar was closed; load it again")


def _numbers(masks: Mapping[int, RegionLike]) -> list[int]:
    if not isinstance(masks, Mapping) or not all(isinstance(number, (int, np.integer)) for number in masks):
        raise GarPromptError("masks must be a mapping of region numbers to masks, e.g. {0: mask}")
    return sorted(masks)
