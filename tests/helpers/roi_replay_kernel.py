"""The replay kernel as plain C++, compiled once for each element type, and the random cases that it must master."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.needs import HOST_COMPILER
from torch import Tensor

from gar_edge.models.replay import replay
from gar_edge.runtime.engines.roi_replay_plugin.kernel import SOURCES, Element, block_threads

HARNESS = Path(__file__).parents[1] / "export" / "plugin" / "host_harness.cpp"
DTYPES = {Element.FLOAT32: torch.float32, Element.FLOAT16: torch.float16, Element.BFLOAT16: torch.bfloat16}


def run_command(*arguments: str | Path) -> None:
    done = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Case:
    """Arguments of one replay, in float32."""

    features: Tensor  # [T,P,C]
    grid: tuple[int, int]
    boxes: Tensor  # [R,4]
    scale: float

    @property
    def side(self) -> int:
        return round(self.features.shape[1] ** 0.5)

    def expected(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The reference's answer in float32, from features rounded to `dtype`."""
        return replay(self.features.to(dtype).float(), self.grid, self.boxes, self.scale)


def random_case(random: np.random.Generator, scales: tuple[float, ...] = ()) -> Case:
    """Any grid, side, channel count and scale; boxes inside, of one pixel, degenerate, inverted and out of range.

    `scales`: to choose from, for kernels that are compiled for each; else the released ones or any other.
    """
    columns, rows = (int(x) for x in random.integers(1, 6, 2))
    side, regions = int(random.integers(1, 9)), int(random.integers(5, 8))
    channels = int(random.integers(1, 41)) if random.random() < 0.5 else 8 * int(random.integers(1, 80))
    features = random.standard_normal((1 + columns * rows, side * side, channels)).astype(np.float32)
    boxes = random.uniform(-0.3, 1.3, (regions, 4)).astype(np.float32)
    boxes[0] = [0, 0, 1, 1]
    boxes[1, 2:] = boxes[1, :2]
    boxes[2] = random.uniform(2, 3, 4)
    boxes[3] = np.sort(random.random((2, 2)), axis=0).ravel()
    boxes[4, 2:] = boxes[4, :2] + 1 / 448
    scale = float(np.float32(random.choice(scales or (1 / 28, 1.0, random.uniform(0.01, 2)))))
    return Case(torch.from_numpy(features), (columns, rows), torch.from_numpy(boxes), scale)


class HostKernel:
    """The kernel for one element type. Compiled without contraction, as the kernel's coordinates are on a GPU.

    A test that makes one is skipped where there is no compiler.
    """

    def __init__(self, element: Element, folder: Path, **defines: str) -> None:
        compiler = shutil.which("g++") or pytest.skip(HOST_COMPILER)
        self.element = element
        library = folder / f"lib{element.name.lower()}.so"
        defined = {"GAR_ELEMENT": element.value, **defines}
        strict = ["-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        macros = [f"-D{name}={text}" for name, text in defined.items()]
        run_command(compiler, *strict, *macros, f"-I{SOURCES}", HARNESS, "-o", library)
        self.compiled: Any = ctypes.CDLL(str(library))
        self.compiled.spatial_scale.restype = ctypes.c_float

    def __call__(self, case: Case, aligned: bool = True) -> Tensor:
        """`case` by the launch that the C++ form makes; [R,P,C] in the element type."""
        tiles, tokens, channels = case.features.shape
        blocks, threads = len(case.boxes) * tokens, block_threads(channels, self.element)
        extras = [tiles, channels]
        return self.launch(case, (len(case.boxes), tokens, channels), blocks, threads, extras, aligned)

    def launch(
        self, case: Case, shape: tuple[int, ...], blocks: int, threads: int, extras: list[int], aligned: bool = True
    ) -> Tensor:
        """`case` by this launch. Fails where anything but the output was written, or not all of it."""
        dtype = DTYPES[self.element]
        features = _placed(case.features.to(dtype), aligned)
        guarded = _placed(torch.full((int(np.prod(shape)) + 2,), torch.nan, dtype=dtype), aligned)
        offset = 1 if not aligned else 0  # the guard in front would spoil the alignment
        out = guarded[offset : offset + int(np.prod(shape))]
        grid = torch.tensor(case.grid)
        self.compiled.launch(
            ctypes.c_uint(blocks), ctypes.c_uint(threads), _pointer(features), _pointer(grid), _pointer(case.boxes),
            *map(ctypes.c_int, extras), _pointer(out), ctypes.c_int(case.side), ctypes.c_float(case.scale),
        )  # fmt: skip
        assert guarded[:offset].isnan().all()
        assert guarded[offset + len(out) :].isnan().all()
        return out.reshape(shape)

    def convert(self, values: Tensor) -> Tensor:
        """float32 `values` in the element type."""
        out = torch.empty(values.shape, dtype=DTYPES[self.element])
        self.compiled.convert(_pointer(values), _pointer(out), ctypes.c_int(values.numel()))
        return out


def _placed(values: Tensor, aligned: bool) -> Tensor:
    """A copy of `values` that begins at a multiple of 16 bytes, or just beside one."""
    room = torch.empty(values.numel() + 32, dtype=values.dtype)
    size = room.element_size()
    begin = -room.data_ptr() % 16 // size + (0 if aligned else 1)
    placed = room[begin : begin + values.numel()].view(values.shape)
    placed.copy_(values)
    assert (placed.data_ptr() % 16 == 0) is aligned
    return placed


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
