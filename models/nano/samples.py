"""Training batches: freshly drawn scenes with packed turns, one deterministic batch per seed and step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset

from gar_edge.models.config import GarConfig, Preprocessing
from gar_edge.models.nano import regions, tasks
from gar_edge.models.nano.packing import NO_TARGET, Packed, Packer
from gar_edge.models.nano.scenes import Scene, draw_scene
from gar_edge.models.nano.tasks import Asked
from gar_edge.models.nano.truth import Truth
from gar_edge.models.nano.vocabulary import COLOURS, FILLS, SHAPES, SIZES
from gar_edge.runtime.bundle.manifest import Preprocess
from gar_edge.runtime.images.preprocess import cut_mask, cut_tiles
from gar_edge.runtime.images.tiling import choose_grid

MOST_THINGS = 6
LOOKUPS = 12
NEEDS_IMAGE = ("describe", "nearest")  # tasks about more than the regions


@dataclass
class Batch:
    """B sequences of S tokens over N tiles in all (thumbnails included) and R regions in all.

    pixels [N,3,t,t] and mask [N,1,t,t] uint8 (pixels empty where only painted features are wanted); cover [N,P,6]:
    share of each token's cell that a thing covers; masked [N,P]: share that is masked; things [B,6,4]: shape, colour,
    fill, size of each thing; tiles [B]: tiles per sample; grids [B] (columns, rows); boxes [R,4]; owner [R]: sample
    of each region; region_things [R]; ids, positions, segments, targets [B,S]; weights [B,S]; sees [B,G,G]; image_at
    [N*P] and replay_at [n]: flat indices into B*S; replay_from [n]: flat indices into R*P; named_at [m]: flat indices
    into B*S of the regions' names in questions; named_region [m] and numbers [R]: which region that is, and each
    region's prompt number; listed_at [k] and listed_chosen [k]: flat indices into B*S of the regions' names in a
    "which", and whether that one is it; letter_at [l] and letter_word [l]: flat indices into B*S where a letter is to
    be said, and the token it stands for; tasks: per sample, per segment.
    """

    pixels: Tensor
    mask: Tensor
    cover: Tensor
    masked: Tensor
    things: Tensor
    tiles: list[int]
    grids: list[tuple[int, int]]
    boxes: Tensor
    owner: Tensor
    region_things: Tensor
    ids: Tensor
    positions: Tensor
    segments: Tensor
    targets: Tensor
    weights: Tensor
    sees: Tensor
    image_at: Tensor
    replay_at: Tensor
    replay_from: Tensor
    named_at: Tensor
    named_region: Tensor
    numbers: Tensor
    listed_at: Tensor
    listed_chosen: Tensor
    letter_at: Tensor
    letter_word: Tensor
    tasks: list[list[str]]

    def to(self, device: torch.device) -> Batch:
        """A copy with its tensors on a device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return Batch(**(vars(self) | moved))


@dataclass(frozen=True)
class Mix:
    """What a batch holds. `several`: share of samples with two or three regions; `pixels`: draw the pictures.

    `image=False` leaves the image out of the prompt; `lookups`: share of samples that only look up letters.
    """

    size: int
    several: float
    limit: int
    pixels: bool
    image: bool = True
    lookups: float = 0.0


@dataclass
class Sample:
    """One sample before collation; shapes as in `Batch`."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    cover: NDArray[np.float32]
    masked: NDArray[np.float32]
    things: NDArray[np.int64]
    grid: tuple[int, int]
    boxes: NDArray[np.float32]
    region_things: list[int]
    numbers: list[int]
    packed: Packed


class Sampler:
    """Draws samples for a model of the given dimensions."""

    def __init__(self, config: GarConfig, pixels: Preprocessing, tokenizer: Tokenizer) -> None:
        self.tile, self.side, self.max_tiles = config.vision.tile, config.tile_side, pixels.max_tiles
        self.no_region = len(config.replay_tokens)
        # The runtime's own preprocessing: what is trained on is what will be asked about.
        self.spec = Preprocess(pixels.tile, pixels.max_tiles, pixels.rescale, pixels.mean, pixels.std)
        self.packer = Packer(tokenizer, config.tile_tokens, config.image_token, list(config.replay_tokens))

    def sample(self, rng: np.random.Generator, several: bool, mix: Mix) -> Sample:
        """A scene with regions and at least one turn; scenes without are drawn again."""
        while True:
            scene = draw_scene(rng, mix.pixels)
            drawn = regions.ask(rng, Truth(scene), several)
            if drawn is None or not drawn[1]:
                continue
            asked, turns = drawn
            grid = choose_grid(scene.width, scene.height, self.tile, self.max_tiles)
            if not mix.image:
                grid = (0, 0)
                turns = [turn for turn in turns if turn.task not in NEEDS_IMAGE]
                if rng.random() < mix.lookups:
                    turns = [tasks.lookup_turn(rng) for _ in range(LOOKUPS)]
            numbers = [number for number, _ in asked.regions]
            packed = self.packer.pack(numbers, _tiles(grid), turns, mix.limit)
            return self._sample(scene, asked, grid, packed, mix.pixels)

    def _sample(self, scene: Scene, asked: Asked, grid: tuple[int, int], packed: Packed, pictures: bool) -> Sample:
        masks = {number: scene.masks[thing] for number, thing in asked.regions}
        image = np.zeros((0, 3, self.tile, self.tile), np.uint8)
        mask = np.zeros((0, 1, self.tile, self.tile), np.uint8)
        if pictures:
            image = cut_tiles(scene.image, self.spec).pixels
            mask = cut_mask(dict(sorted(masks.items())), grid, self.spec, self.no_region)[:, None].astype(np.uint8)
        cover = np.zeros((_tiles(grid), self.side**2, MOST_THINGS), np.float32)
        for index, visible in enumerate(scene.masks):
            cover[:, :, index] = self._cells(visible, grid)
        boxes = np.array([asked.truth.boxes[thing] for thing in asked.things], np.float32)
        return Sample(
            image,
            mask,
            cover,
            self._cells(np.logical_or.reduce(list(masks.values())), grid),
            _words(scene),
            grid,
            boxes,
            asked.things,
            [number for number, _ in asked.regions],
            packed,
        )

    def _cells(self, mask: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.float32]:
        """Share of each token's cell that a mask covers, [T,P]."""
        side, (columns, rows) = self.side, grid
        if not columns:
            return np.zeros((0, side * side), np.float32)
        plane = mask.astype(np.float32)
        size = (columns * side, rows * side)
        whole = cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
        split = whole.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side * side)
        small = cv2.resize(plane, (side, side), interpolation=cv2.INTER_AREA).reshape(1, -1)
        return np.concatenate([small, split])


def _tiles(grid: tuple[int, int]) -> int:
    """Tiles with the thumbnail; no grid, no image."""
    return 1 + grid[0] * grid[1] if grid[0] else 0


def _words(scene: Scene) -> NDArray[np.int64]:
    """[6,4]: shape, colour, fill, size of each thing; zeros where there is none (its cover is zero too)."""
    table = np.zeros((MOST_THINGS, 4), np.int64)
    for row, thing in zip(table, scene.things, strict=False):
        row[:] = (
            SHAPES.index(thing.shape),
            COLOURS.index(thing.colour),
            FILLS.index(thing.fill),
            SIZES.index(thing.size),
        )
    return table


def collate(samples: list[Sample], packer: Packer) -> Batch:
    """Samples to one padded batch; padding is a segment of its own that sees only itself."""
    tile_tokens, image, replay = packer.tile_tokens, packer.image, packer.replay
    length = max(len(s.packed.ids) for s in samples)
    groups = max(len(s.packed.parents) for s in samples) + 1
    rows, boxes, replay_from = [], [], []
    named_at: list[int] = []
    named_region: list[int] = []
    listed: list[tuple[int, bool]] = []
    sees = np.zeros((len(samples), groups, groups), np.bool_)
    sees[:, groups - 1, groups - 1] = True
    region = 0
    for index, sample in enumerate(samples):
        packed = sample.packed
        pad = length - len(packed.ids)
        count = len(packed.parents)
        sees[index, :count, :count] = packed.sees()
        columns = (
            packed.ids + [0] * pad,
            packed.positions + list(range(pad)),
            packed.segments + [groups - 1] * pad,
            packed.targets + [NO_TARGET] * pad,
        )
        rows.append(np.array(columns, np.int64))
        boxes.append(sample.boxes)
        cells = np.arange(len(sample.boxes) * tile_tokens) + region * tile_tokens
        repeats = int(np.isin(packed.ids, replay).sum()) // len(cells)
        replay_from.append(np.tile(cells, repeats))
        for at, (token, segment) in enumerate(zip(packed.ids, packed.segments, strict=True)):
            if token in packer.names and packed.tasks[segment]:
                named_at.append(index * length + at)
                number = packer.names.index(token)
                named_region.append(region + sample.numbers.index(number))
                if segment in packed.chosen:
                    listed.append((index * length + at, packed.chosen[segment] == number))
        region += len(sample.boxes)
    table = np.stack(rows)  # [B,4,S]
    ids = table[:, 0]
    weights = np.zeros((len(samples), length), np.float32)
    for index, sample in enumerate(samples):
        weights[index, : len(sample.packed.weights)] = sample.packed.weights
    return Batch(
        pixels=torch.from_numpy(np.concatenate([s.pixels for s in samples])),
        mask=torch.from_numpy(np.concatenate([s.mask for s in samples])),
        cover=torch.from_numpy(np.concatenate([s.cover for s in samples])),
        masked=torch.from_numpy(np.concatenate([s.masked for s in samples])),
        things=torch.from_numpy(np.stack([s.things for s in samples])),
        tiles=[_tiles(s.grid) for s in samples],
        grids=[s.grid for s in samples],
        boxes=torch.from_numpy(np.concatenate(boxes)),
        owner=torch.from_numpy(np.repeat(np.arange(len(samples)), [len(s.boxes) for s in samples])),
        region_things=torch.tensor([thing for s in samples for thing in s.region_things]),
        ids=torch.from_numpy(ids),
        positions=torch.from_numpy(table[:, 1]),
        segments=torch.from_numpy(table[:, 2]),
        targets=torch.from_numpy(table[:, 3]),
        weights=torch.from_numpy(weights),
        sees=torch.from_numpy(sees),
        image_at=torch.from_numpy(np.flatnonzero(ids == image)),
        replay_at=torch.from_numpy(np.flatnonzero(np.isin(ids, replay))),
        replay_from=torch.from_numpy(np.concatenate(replay_from)),
        named_at=torch.tensor(named_at, dtype=torch.int64),
        named_region=torch.tensor(named_region, dtype=torch.int64),
        numbers=torch.tensor([number for s in samples for number in s.numbers]),
        listed_at=torch.tensor([at for at, _ in listed], dtype=torch.int64),
        listed_chosen=torch.tensor([float(chosen) for _, chosen in listed]),
        letter_at=torch.tensor([i * length + at for i, s in enumerate(samples) for at, _ in s.packed.words]).long(),
        letter_word=torch.tensor([word for s in samples for _, word in s.packed.words]).long(),
        tasks=[s.packed.tasks for s in samples],
    )


class Batches(Dataset[Batch]):
    """Batch number `step` of a stream: the same for the same seed, whatever came before."""

    def __init__(self, sampler: Sampler, seed: int, mix: Callable[[int], Mix]) -> None:
        """`mix` says what a step's batch holds."""
        self.sampler, self.seed, self.mix = sampler, seed, mix

    def __getitem__(self, step: int) -> Batch:
        mix = self.mix(step)
        rng = np.random.default_rng((self.seed, step))
        several = rng.random(mix.size) < mix.several
        return collate([self.sampler.sample(rng, bool(flag), mix) for flag in several], self.sampler.packer)
