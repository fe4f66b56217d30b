"""Tiles to features and regions to replayed features, in the engine's memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.bundle.manifest import Manifest
from gar_edge.runtime.engines.limits import TILES_AT_ONCE
from gar_edge.runtime.engines.protocol import Array, Backend, Buffer
from gar_edge.runtime.images.preprocess import Tiles, Window
from gar_edge.runtime.images.shape import Extent
from gar_edge.runtime.images.tiling import Grid


class VisionRunner:
    """The encoder and replay graphs of one bundle. at_once: tiles that one run of the encoder takes."""

    def __init__(self, backend: Backend, manifest: Manifest) -> None:
        self._backend = backend
        self._manifest = manifest
        self._encoder = backend.session("encoder")
        self._roi_replay = backend.session("roi_replay")
        self._cutter = backend.cutter
        self.at_once = min(TILES_AT_ONCE, max(1, backend.features_at_once // manifest.dimensions.tile_tokens))
        self.dtype = np.dtype(manifest.graphs["encoder"].outputs[0].dtype)
        with_thumbnail = self._roi_replay.limit("features", 0)
        self.most_tiles = None if with_thumbnail is None else with_thumbnail - 1  # that an engine was built for

    def ready(self, tiles: Tiles) -> Tiles:
        """Tiles whose pixels are cut now, where the host is to do that."""
        return tiles.cut() if self._cutter is None else tiles

    @property
    def cuts(self) -> bool:
        """Whether the engine cuts the tiles."""
        return self._cutter is not None

    def take(self, tiles: Tiles) -> Buffer:
        """Their picture, in the memory of an engine that cuts."""
        assert self._cutter is not None
        return self._cutter.take(tiles.image)

    def cut(self, wanted: Sequence[tuple[Buffer, Window]]) -> Buffer:
        """Tiles of pictures that were taken, as bytes [T,3,h,w]."""
        assert self._cutter is not None
        side = self._manifest.preprocess.tile
        pixels = self._backend.empty((len(wanted), 3, side, side), np.dtype(np.uint8))
        for row, (picture, window) in enumerate(wanted):
            self._cutter.cut(picture, window, pixels.rows(row, row + 1).reshape(3, side, side))
        return pixels

    def encode(self, pixels: Buffer | NDArray[np.uint8], mask: NDArray[np.bool_]) -> Buffer:
        """Bytes [T,3,h,w] and mask [T,h,w] -> features [T,P,C]."""
        dims = self._manifest.dimensions
        features = self._backend.empty((len(mask), dims.tile_tokens, dims.hidden), self.dtype)
        for begin in range(0, len(mask), self.at_once):
            end = min(begin + self.at_once, len(mask))
            part = pixels[begin:end] if isinstance(pixels, np.ndarray) else pixels.rows(begin, end)
            inputs: dict[str, Buffer | Array] = {"pixels": part, "mask": mask[begin:end, None]}
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
