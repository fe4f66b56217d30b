"""One bundle's stages, timed through the answers that a user would get."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.bundle.bundle import Bundle
from gar_edge.runtime.bundle.manifest import Manifest
from gar_edge.runtime.engines.build_progress import Watch
from gar_edge.runtime.engines.choice import open_backend
from gar_edge.runtime.engines.protocol import Buffer
from gar_edge.runtime.gar import Gar
from gar_edge.runtime.generate.answer import Answer
from gar_edge.runtime.generate.options import Options
from gar_edge.runtime.generate.pipeline import Pipeline
from gar_edge.runtime.images.shape import Extent
from gar_edge.runtime.images.tiling import Grid
from gar_edge.runtime.model.vision import VisionRunner
from gar_edge.runtime.scene import Scene


@dataclass(frozen=True)
class Setting:
    """What is asked. tiles: beside the thumbnail; regions: how many are described together, in one pass for each."""

    tiles: int
    regions: tuple[int, ...]
    new_tokens: int
    backend: str
    decoder: str
    threads: int


@dataclass
class Samples:
    """Figures of every round, by name."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)


class Contestant:
    """A loaded bundle and a picture that is cut into as many tiles as were asked for."""

    def __init__(self, folder: Path, setting: Setting, watch: Watch) -> None:
        """`GarError` where the bundle cannot be loaded with such a setting."""
        begin = time.perf_counter()
        opened, engine = open_backend(
            Bundle.open(folder), name=setting.backend, decoder=setting.decoder, threads=setting.threads, watch=watch
        )
        pipeline = Pipeline.of(_endless(opened), engine, WaitedFor)
        self.gar = Gar(pipeline, batch=max(setting.regions))
        self.load_ms = (time.perf_counter() - begin) * 1e3
        self.name = self.gar.manifest.name
        self.samples = Samples()
        self.prompt_tokens = 0
        self._setting = setting
        self._options = Options(max_new_tokens=setting.new_tokens)
        self._picture = _picture(self.gar.manifest, setting.tiles)

    @property
    def grid(self) -> Grid:
        return self.gar.open(self._picture, max_tiles=self._setting.tiles).grid

    def round(self) -> None:
        """A first question, one more about its region, one about another region; then several regions at once."""
        scene = self.gar.open(self._picture, max_tiles=self._setting.tiles)
        height, width = self._picture.shape[:2]
        first, second = (_square(height, width, place, 0.2) for place in ((0.3, 0.3), (0.1, 0.1)))
        region = self.gar.manifest.prompt.default_region
        answer = scene.describe(first, options=self._options)
        self._add_stages(answer)
        name = self.gar.manifest.prompt.regions[region]
        again = [
            scene.ask(f"{what} {name}?", {region: first}, options=Options(max_new_tokens=1))
            for what in ("What is", "Where is")
        ]
        other = scene.describe(second, options=Options(max_new_tokens=1))
        add = self.samples.add
        add("second_question.first_token_ms", again[1].timings_ms.first_token)
        add("second_region.first_token_ms", other.timings_ms.first_token)
        add("second_region.encode_ms", other.timings_ms.encode)
        for count in self._setting.regions:
            self._describe(scene, count)

    def _add_stages(self, answer: Answer) -> None:
        times, add = answer.timings_ms, self.samples.add
        self.prompt_tokens = answer.prompt_tokens
        add("preprocess.ms", times.preprocess)
        add("encode.ms", times.encode)
        add("replay.ms", times.replay)
        add("prefill.ms", times.prefill)
        add("first_token_ms", times.first_token)
        add("encode.tiles_per_s", answer.reuse.tiles_encoded / times.encode * 1e3)
        add("prefill.tokens_per_s", answer.prompt_tokens / times.prefill * 1e3)
        if len(answer.tokens) > 1:
            add("decode.tokens_per_s", (len(answer.tokens) - 1) / times.decode * 1e3)

    def _describe(self, scene: Scene, count: int) -> None:
        """Regions of a picture that is open already, beside one another."""
        height, width = self._picture.shape[:2]
        places = [(0.05 + 0.9 * index / count, 0.5) for index in range(count)]
        masks = [_square(height, width, place, 0.1) for place in places]
        begin = time.perf_counter()
        answers = scene.describe_all(masks, options=self._options)
        seconds = time.perf_counter() - begin
        decode = max(answer.timings_ms.decode for answer in answers)
        if self.gar.scheduler.places == 1:
            decode = sum(answer.timings_ms.decode for answer in answers)
        self.samples.add(f"regions.{count}.regions_per_s", count / seconds)
        if self._setting.new_tokens > 1:
            tokens = sum(len(answer.tokens) - 1 for answer in answers)
            self.samples.add(f"regions.{count}.decode_tokens_per_s", tokens / decode * 1e3)


class WaitedFor(VisionRunner):
    """Sessions that are waited for: an engine on a GPU otherwise works on while the next stage is timed."""

    def encode(self, *arguments: object) -> Buffer:
        return _wait(super().encode(*arguments))  # type: ignore[arg-type]

    def roi_replay(self, features: Buffer, grid: Grid, boxes: Sequence[Extent]) -> Buffer:
        return _wait(super().roi_replay(features, grid, boxes))


def _wait(buffer: Buffer) -> Buffer:
    buffer.rows(0, 1).read()
    return buffer


def _endless(bundle: Bundle) -> Bundle:
    """The bundle without stop tokens: every answer is as long as was asked for."""
    prompt = dataclasses.replace(bundle.manifest.prompt, stop_tokens=())
    return Bundle(bundle.folder, dataclasses.replace(bundle.manifest, prompt=prompt))


def _picture(manifest: Manifest, tiles: int) -> NDArray[np.uint8]:
    """Noise [H,W,3] of as many whole tiles, in the squarest grid."""
    rows = max(row for row in range(1, int(tiles**0.5) + 1) if tiles % row == 0)
    side = manifest.preprocess.tile
    return np.random.default_rng(0).integers(0, 256, (rows * side, tiles // rows * side, 3), np.uint8)


def _square(height: int, width: int, place: tuple[float, float], share: float) -> NDArray[np.bool_]:
    """A mask [H,W]: a square whose side is a share of the picture's shorter one, at a place in fractions."""
    side = max(1, round(share * min(height, width)))
    left, top = (min(round(at * size), size - side) for at, size in zip(place, (width, height), strict=True))
    mask = np.zeros((height, width), np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask
