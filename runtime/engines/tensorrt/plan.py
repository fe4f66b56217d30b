"""Which sizes a bundle's engines are built for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gar_edge.runtime.bundle.manifest import Graph, Manifest
from gar_edge.runtime.engines.cuda.on_device import PREFILL_CHUNK
from gar_edge.runtime.engines.limits import SELECTED_AT_ONCE, TILES_AT_ONCE, round_up
from gar_edge.runtime.errors import GarBackendError

TEXT_TOKENS = 256  # room for a prompt's words, beside tiles and regions
NEW_TOKENS = 256  # room for an answer after the longest prompt; after shorter prompts there is more
BATCH = "batch"  # the decoder's dimension of sequences
SIDE_BY_SIDE, MOST_SIDE_BY_SIDE = 4, 64  # sequences that one step serves: unless asked otherwise, and at most

Range = tuple[int, ...]  # least, usual, most


@dataclass(frozen=True)
class Profile:
    """An optimisation profile. dims: range by dimension's name; values: least, usual, most values of a shape input."""

    dims: Mapping[str, Range]
    values: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class EnginePlan:
    """fixed: symbolic dimensions that become numbers in the graph. profiles: for those that still vary."""

    fixed: Mapping[str, int]
    profiles: tuple[Profile, ...]


@dataclass(frozen=True)
class Limits:
    """tiles: most beside the thumbnail. capacity: cache slots, that is tokens of prompt and answer together.

    batch: most sequences of one decode step.
    """

    tiles: int
    capacity: int
    batch: int = SIDE_BY_SIDE

    @classmethod
    def of(
        cls, manifest: Manifest, tiles: int | None = None, capacity: int | None = None, batch: int | None = None
    ) -> Limits:
        """What was asked for, or what the bundle's own limits need; capacities are rounded up.

        `GarBackendError` for what the model's context does not hold.
        """
        dims, most = manifest.dimensions, len(manifest.prompt.regions)
        smallest = 3 * dims.tile_tokens + 1  # thumbnail, a tile, a region, and anything at all
        if tiles is None:
            tiles = manifest.preprocess.max_tiles
        fitting = dims.context // dims.tile_tokens - 3
        if not 1 <= tiles <= fitting:
            raise GarBackendError(
                f"{tiles} tiles do not fit the model's context of {dims.context}; take 1 to {fitting}"
            )
        if capacity is None:
            capacity = min((tiles + 1 + most) * dims.tile_tokens + TEXT_TOKENS + NEW_TOKENS, dims.context)
        if not smallest <= capacity <= dims.context:
            raise GarBackendError(
                f"a capacity of {capacity} does not suit this model; take {smallest} to {dims.context}"
            )
        batch = SIDE_BY_SIDE if batch is None else batch
        if not 1 <= batch <= MOST_SIDE_BY_SIDE:
            raise GarBackendError(f"a batch of {batch} is none; take 1 to {MOST_SIDE_BY_SIDE}")
        return cls(tiles, min(round_up(capacity), dims.context), batch)


def plan_of(graph: str, manifest: Manifest, limits: Limits, plugin: bool) -> EnginePlan:
    """How to build one of a bundle's graphs. plugin: whether the replay is a plugin, which reads the grid itself."""
    if graph == "encoder":
        return EnginePlan({}, (Profile({"tiles": (1, TILES_AT_ONCE, TILES_AT_ONCE)}),))
    if graph == "decoder":
        return _decoder_plan(manifest.graphs[graph], limits)
    regions = (1, 1, len(manifest.prompt.regions))
    if plugin:
        tiles = limits.tiles + 1
        return EnginePlan({}, (Profile({"tiles": (2, tiles, tiles), "regions": regions}),))
    return EnginePlan({}, tuple(_replay_profile(*grid, regions) for grid in _largest_grids(limits.tiles)))


def _decoder_plan(decoder: Graph, limits: Limits) -> EnginePlan:
    """Prefill and decode of one sequence, and decode of several.

    The cache is of one size, or, in the form that appends to it, which is for one sequence, of any up to `capacity`.
    """
    capacity = limits.capacity
    chunk = min(PREFILL_CHUNK, capacity)
    lengths = ((1, chunk, chunk), (1, 1, 1))
    selected = ((1, 1, min(SELECTED_AT_ONCE, chunk)), (1, 1, 1))
    runs = [{"length": length, "selected": rows} for length, rows in zip(lengths, selected, strict=True)]
    if not decoder.appends:
        if limits.batch == 1:
            return EnginePlan({BATCH: 1, "capacity": capacity}, tuple(Profile(run) for run in runs))
        # One sequence keeps profiles of its own: kernels for it are chosen for it, and its step is of one shape.
        alone = [Profile({BATCH: (1, 1, 1), **run}) for run in runs]
        several = Profile({BATCH: (2, limits.batch, limits.batch), **runs[-1]})
        return EnginePlan({"capacity": capacity}, (*alone, several))
    shapes = {port.name: port.shape for port in decoder.inputs}
    past, total = str(shapes[next(iter(decoder.appends.values()))][1]), str(shapes["attention_mask"][3])
    profiles = []
    for run in runs:
        _, length, _ = run["length"]
        usual = (capacity - length) // 2
        profiles.append(Profile({**run, past: (0, usual, capacity - 1), total: (1, usual + length, capacity)}))
    return EnginePlan({BATCH: 1}, tuple(profiles))


def _replay_profile(columns: int, rows: int, regions: Range) -> Profile:
    tiles = columns * rows + 1
    return Profile(
        {"tiles": (2, tiles, tiles), "regions": regions}, {"grid": ((1, 1), (columns, rows), (columns, rows))}
    )


def _largest_grids(tiles: int) -> list[tuple[int, int]]:
    """Grids (columns, rows) of at most so many tiles, such that any other fits inside one of them.

    A single profile would have to allow as many columns as rows, and TensorRT plans memory for the product: `tiles`
    times too much.
    """
    tallest: dict[int, int] = {}  # rows by columns
    for rows in range(1, tiles + 1):
        tallest[tiles // rows] = rows
    return list(tallest.items())
