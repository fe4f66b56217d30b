"""The replay kernel's time on this GPU: `python -m gar_edge.export.replay_benchmark --size 1b`.

Beside it the unfused sequence (`gar_edge.models.replay` in torch, about twenty launches) and a floor: a copy of as many
bytes as a replay must move, which is reading each touched cell once and writing the output once. Each is captured in a
CUDA graph several times over, so that the host's part is not measured; what fits into the L2 cache stays there.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from gar_edge.models.sizes import Size
from gar_edge.runtime.cli.terminal import run_app
from gar_edge.runtime.errors import GarBackendError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
BOUNDS = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 8e-3}  # largest relative L2 distance to the reference


class FloatType(str, Enum):
    """The features' type."""

    FP32 = "float32"
    FP16 = "float16"
    BF16 = "bfloat16"


@dataclass(frozen=True)
class Figures:
    """Medians in microseconds of one replay of all regions, and what was moved."""

    device: str
    torch: str
    kernel: float
    unfused: float
    copy: float
    megabytes: float
    distance: float  # relative L2 distance to the reference


@app.command()
def benchmark(
    size: Annotated[Size, typer.Option(help="Whose dimensions.")] = Size.B1,
    columns: Annotated[int, typer.Option(min=1, help="Columns of tiles.")] = 3,
    rows: Annotated[int, typer.Option(min=1, help="Rows of tiles.")] = 2,
    regions: Annotated[int, typer.Option(min=1, help="Regions replayed at once.")] = 1,
    precision: Annotated[FloatType, typer.Option(help="The features' type.")] = FloatType.FP16,
    launches: Annotated[int, typer.Option(min=1, help="Launches in one CUDA graph.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Graph launches; the median counts.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time the replay kernel against the unfused sequence and a copy of as many bytes."""
    figures = measure(size, (columns, rows), regions, precision, launches, rounds)
    if as_json:
        print(json.dumps(asdict(figures)))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("", "µs", "GB/s", "times the copy", title=f"{figures.device}, torch {figures.torch}")
    for name in ("kernel", "unfused", "copy"):
        time = getattr(figures, name)
        table.add_row(name, f"{time:.1f}", f"{1e3 * figures.megabytes / time:.0f}", f"{time / figures.copy:.2f}")
    Console().print(table)


def measure(
    size: Size, grid: tuple[int, int], regions: int, precision: FloatType, launches: int, rounds: int
) -> Figures:
    """All three on random features and boxes. Raises `GarBackendError` without a GPU, or where the result is wrong."""
    import numpy as np
    import torch

    from gar_edge.export.gpu_kernel import GpuKernel, require_gpu
    from gar_edge.models.config import parse_config
    from gar_edge.models.replay import replay

    require_gpu()
    config = parse_config(size.preset.config())
    scale = float(np.float32(config.replay_spatial_scale))
    dtype: torch.dtype = getattr(torch, precision.value)
    shape = (1 + grid[0] * grid[1], config.tile_tokens, config.text.hidden)
    torch.manual_seed(0)
    features = torch.randn(shape, device="cuda").to(dtype)
    corner = torch.rand(regions, 2) / 2
    boxes = torch.cat([corner, corner + 0.5 * torch.rand(regions, 2)], dim=1).cuda()
    kernel = GpuKernel(dtype, config.tile_side, scale)
    tiles = torch.tensor(grid, device="cuda")
    out = kernel(features, tiles, boxes)
    expected = replay(features.float(), grid, boxes, scale)
    distance = float(torch.linalg.norm(out.float() - expected) / torch.linalg.norm(expected))
    if not distance <= BOUNDS[precision.value]:
        raise GarBackendError(f"The kernel is {distance:.1e} from the reference, allowed {BOUNDS[precision.value]:.0e}")
    size_bytes = bytes_moved(boxes.cpu(), grid, config.tile_side, scale, config.text.hidden * features.element_size())
    source = torch.empty(size_bytes // 2, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)

    def median(work: Callable[[], object]) -> float:
        return _median_microseconds(work, launches, rounds)

    return Figures(
        device=torch.cuda.get_device_name(),
        torch=torch.__version__,
        kernel=median(kernel.launch(features, tiles, boxes, out)),
        unfused=median(lambda: replay(features, grid, boxes, scale)),
        copy=median(lambda: target.copy_(source)),
        megabytes=size_bytes / 1e6,
        distance=distance,
    )


def bytes_moved(boxes: Tensor, grid: tuple[int, int], side: int, scale: float, token_bytes: int) -> int:
    """Bytes of all cells that any box [R,4] touches, once, and of the output. `token_bytes`: one token's features."""
    from gar_edge.models.replay import axis_weights

    def touched(begin: Tensor, end: Tensor, length: int) -> Tensor:
        return (axis_weights(begin * length, end * length, length, side, scale) > 0).any(dim=1)  # [R,length]

    x1, y1, x2, y2 = boxes.unbind(-1)
    across, down = touched(x1, x2, grid[0] * side), touched(y1, y2, grid[1] * side)
    cells = int((down[:, :, None] & across[:, None, :]).any(dim=0).sum())
    return (cells + len(boxes) * side * side) * token_bytes


def _median_microseconds(work: Callable[[], object], launches: int, rounds: int) -> float:
    """Time of one `work`, captured `launches` times in one CUDA graph."""
    import torch

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):  # CUDA graphs want everything lazy to have happened, on a stream of its own
        for _ in range(3):
            work()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(launches):
            work()
    times = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(1e3 * begin.elapsed_time(end) / launches)
    return statistics.median(times)


if __name__ == "__main__":
    run_app(app)
