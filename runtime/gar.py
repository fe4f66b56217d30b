"""The public face: load a bundle, open a picture, ask about its regions."""

from __future__ import annotations

import itertools
import time
import weakref
from collections.abc import Sequence
from pathlib import Path

from gar_edge.runtime.bundle.bundle import Bundle
from gar_edge.runtime.bundle.shipped import usual_bundle
from gar_edge.runtime.clip import Clip
from gar_edge.runtime.engines.build_progress import Watch
from gar_edge.runtime.engines.choice import open_backend
from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.generate.kept import KeptWork
from gar_edge.runtime.generate.pipeline import Pipeline
from gar_edge.runtime.generate.request import OpenPicture
from gar_edge.runtime.generate.scheduler import Scheduler
from gar_edge.runtime.images.loading import ImageLike, load_picture
from gar_edge.runtime.images.preprocess import Tiles
from gar_edge.runtime.scene import Scene

BATCH = 8  # answers side by side
QUEUE = 64  # requests that wait
CACHE_BYTES = 1 << 30  # eight dialogues of the 1B about pictures of six tiles, in fp32


class Gar:
    """A loaded model. Threads may share it: what they ask is answered side by side."""

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        cache_bytes: int = CACHE_BYTES,
        batch: int = BATCH,
        queue: int = QUEUE,
    ) -> None:
        """`load` makes the pipeline as well, and says what the rest means."""
        if batch < 1 or queue < 1:
            raise GarPromptError(f"batch and queue must be at least 1, not {batch} and {queue}")
        self.manifest = pipeline.manifest
        self.scheduler = Scheduler(pipeline, KeptWork(cache_bytes), places=batch, queue=queue)
        self._scenes = itertools.count()

    @classmethod
    def load(
        cls,
        bundle: str | Path | None = None,
        *,
        backend: str = "auto",
        threads: int = 0,
        cache_bytes: int = CACHE_BYTES,
        decoder: str = "standard",
        batch: int = BATCH,
        queue: int = QUEUE,
        watch: Watch = lambda step: None,
    ) -> Gar:
        """Load a bundle folder made by gar-export; None takes the one exported last, or else gar-nano.

        backend: "auto", "onnxruntime", "cuda" (ONNX Runtime on a GPU), "tensorrt" or "tensorrt_rtx"; "auto" takes
        TensorRT, else "cuda", where a GPU, the library and the bundle allow it, else "onnxruntime".
        threads: processor threads per graph, 0 for all cores ("onnxruntime" only).
        cache_bytes: memory for what earlier answers leave to later ones, features of tiles and KV caches, over all
        scenes and dialogues; the least recently used leave first, and answers in the making come before them.
        batch: most answers side by side; each needs a KV cache. queue: most requests that wait, beyond which asking
        raises `GarBusyError`.
        decoder: "standard", or "compat" for the graph that engines of opset 20 take (`gar-export --compat`). An
        engine that is too old for the standard one takes compat by itself, ONNX Runtime with a warning.
        watch: called with each step where engines must be built first, which can take minutes; it stops the build by
        raising.
        Raises `GarBundleError` for a damaged or missing bundle, `GarBackendError` for an engine that is not there.
        """
        folder = bundle if bundle is not None else usual_bundle()
        opened, engine = open_backend(Bundle.open(folder), name=backend, decoder=decoder, threads=threads, watch=watch)
        return cls(Pipeline.of(opened, engine), cache_bytes=cache_bytes, batch=batch, queue=queue)

    def __enter__(self) -> Gar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pipeline(self) -> Pipeline:
        """The graphs and what goes with them; `GarBackendError` once this is closed."""
        return self.scheduler.pipeline

    def close(self) -> None:
        """Give up engines, caches and, on a GPU, their memory; whatever is asked afterwards raises `GarBackendError`.

        Answers in the making in other threads end with that error too: cancel them first.
        """
        self.scheduler.close()

    def open(self, image: ImageLike, *, max_tiles: int | None = None) -> Scene:
        """Open a picture: a path, a file's bytes, a Pillow image, or RGB uint8 [H,W,3].

        `max_tiles` replaces the bundle's limit.
        """
        begin = time.perf_counter()
        limit = self._max_tiles(max_tiles)
        picture = load_picture(image)
        tiles = self.pipeline.vision.ready(Tiles.of(picture.pixels, self.manifest.preprocess, limit))
        opened = OpenPicture(tiles, next(self._scenes))
        weakref.finalize(opened, self.scheduler.kept.drop, opened.key)
        return Scene(self.scheduler, picture, opened, opening_ms=(time.perf_counter() - begin) * 1e3)

    def open_clip(self, frames: Sequence[ImageLike], times: Sequence[float] | None = None) -> Clip:
        """Open frames of a video for questions about regions in all of them. Experimental: docs/video.md.

        frames: what `open` takes, of one size, in their order. times: of each, rising, in seconds; without them the
        frames' numbers. `GarImageError` otherwise.
        """
        return Clip.opening(self.scheduler, self._scenes, frames, times)

    def _max_tiles(self, wanted: int | None) -> int | None:
        """What limits the tiles beside the thumbnail: the caller, or what the engines were built for."""
        built = self.pipeline.vision.most_tiles
        if wanted is None:
            return None if built is None else min(built, self.manifest.preprocess.max_tiles)
        # Beside the thumbnail and one region:
        most = self.pipeline.decoder.longest // self.manifest.dimensions.tile_tokens - 2
        if wanted > most:
            raise GarPromptError(f"max_tiles {wanted} would overflow the model's context; at most {most} fit")
        if built is not None and wanted > built:
            raise GarPromptError(
                f"max_tiles {wanted} is more than the engines were built for ({built}); "
                f"gar-engine build --max-tiles {wanted} builds others"
            )
        return wanted
