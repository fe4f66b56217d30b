"""Tiles to features and regions to replayed features, in the engine's memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.bundle.manifest import Manifest
from gar_edge.runtime.engines.limits import TILES_AT_ONCE
from gar_edge.runtime.engines.protocol import Array, Backend, Buffer
from gar_edge.runtime.images.shape import Extent
from gar_edge.runtime.images.tiling import Grid


class VisionRunner:
    """The encoder and replay graphs of one bundle. at_once: tiles that one run of the encoder takes."""

    def __init__(self, backend: Backend, manifest: Manifest) -> None:
        self._backend = backend
        self._manifest = manifest
        self._encoder = backend.session("encoder")
        self._roi_replay = backend.session("roi_replay")
        self.at_once = min(TILES_AT_ONCE, max(1, backend.features_at_once // manifest.dimensions.tile_tokens))
        self.dtype = np.dtype(manifest.graphs["encoder"].outputs[0].dtype)
        with_thumbnail = self._roi_replay.limit("features", 0)
        self.most_tiles = None if with_thumbnail is None else with_thumbnail - 1  # that an engine was built for

    def encode(self, pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Buffer:
        """Bytes [T,3,h,w] and mask [T,h,w] -> features [T,P,C]."""
        dims = self._manifest.dimensions
        features = self._backend.empty((len(pixels), dims.tile_tokens, dims.hidden), self.dtype)
        for begin in range(0, len(pixels), self.at_once):
            end = min(begin + self.at_once, len(pixels))
            inputs = {"pixels": pixels[begin:end], "mask": mask[begin:end, None]}
            self._encoder.bind(inputs, {"features": features.rows(begin, end)})()
        return features

    def roi_replay(self, features: Buffer, grid: Grid, boxes: Sequence[Extent]) -> Buffer:
        """Features [T,P,C] and the regions' boxes (fractions of the image) -> replayed [R,P,C]."""
        dims = self._manifest.dimensions
        replayed = self._backend.empty((len(boxes), dims.tile_tokens, dims.hidden), self.dtype)
        inputs: dict[str, Buffer | Array] = {
            "features": features,
            "grid": np.asarray(grid, np.int64),
            "boxes": np.asarray(boxes, np.float32),
        }
        self._roi_replay.bind(inputs, {"replayed": replayed})()
        return replayed
