"""The tile cutter's kernels as plain C++, and what they must give, added up in NumPy."""

from __future__ import annotations

import ctypes
import mmap
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.needs import HOST_COMPILER
from numpy.typing import NDArray

from gar_edge.runtime.engines.cuda.cutter import SOURCE
from gar_edge.runtime.images.preprocess import Window
from gar_edge.runtime.images.resize import Span, weights_of

HARNESS = Path(__file__).parent / "cut_tile_harness.cpp"
GUARD = 64  # elements on both sides of what a kernel writes


class HostCutter:
    """Compiled as the GPU computes: no other additions than those written. Skips a test where there is no compiler."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("g++") or pytest.skip(HOST_COMPILER)
        library = folder / "libcut_tile.so"
        strict = ["-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        command = [compiler, *strict, f"-I{SOURCE.parent}", str(HARNESS), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self._compiled: Any = ctypes.CDLL(str(library))

    def __call__(
        self, image: NDArray[np.uint8], window: Window, block: tuple[int, int] = (32, 8)
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """What both passes leave: wide [3,rows,width] and the tile. Every input ends where memory does."""
        across, down = window
        x, y = axis(across), axis(down)
        first, _ = y
        top, bottom = int(first[down.begin]), min(int(first[down.end - 1]) + len(y[1]), down.source)
        rows, width, height = bottom - top, across.end - across.begin, down.end - down.begin
        wide, tile = _guarded((3, rows, width), np.float32), _guarded((3, height, width), np.uint8)
        taken = [_at_the_end(array) for array in (image, *x)]
        self._compiled.across(
            *map(ctypes.c_uint, block), *map(_pointer, taken), *_sizes(across, x), width, top, rows,
            _pointer(_inner(wide)),
        )  # fmt: skip
        taken = [_at_the_end(array) for array in (_inner(wide).reshape(3, rows, width), *y)]
        self._compiled.down(
            *map(ctypes.c_uint, block), *map(_pointer, taken), *_sizes(down, y), height, top, rows, width,
            _pointer(_inner(tile)),
        )  # fmt: skip
        for guarded in (wide, tile):
            assert (guarded[:GUARD] == 77).all()
            assert (guarded[-GUARD:] == 77).all()
        return _inner(wide).reshape(3, rows, width), _inner(tile).reshape(3, height, width)


def axis(span: Span) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """First samples and weights of the whole axis, as the cutter uploads them."""
    low, weights = weights_of(Span(span.source, span.target, 0, span.target))
    return low.astype(np.int32), weights


def added_in_order(samples: NDArray[Any], span: Span) -> NDArray[np.float32]:
    """The last axis resized: one product after the other, exact in float64, rounded to float32 after each addition."""
    low, weights = weights_of(span)
    sums = np.zeros((*samples.shape[:-1], span.end - span.begin), np.float32)
    for tap, weight in enumerate(weights):
        at = low + tap
        product = samples[..., np.minimum(at, span.source - 1)].astype(np.float64) * weight
        sums = np.where(at < span.source, (product + sums).astype(np.float32), sums)
    return sums


def _sizes(span: Span, axis: tuple[NDArray[Any], NDArray[Any]]) -> list[int]:
    return [span.source, span.target, len(axis[1]), span.begin]


def _guarded(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    return np.full(int(np.prod(shape)) + 2 * GUARD, 77, dtype)


def _inner(guarded: NDArray[Any]) -> NDArray[Any]:
    return guarded[GUARD:-GUARD]


def _at_the_end(array: NDArray[Any]) -> NDArray[Any]:
    """A copy behind which lies a page that must not be read: whoever does crashes."""
    page = mmap.PAGESIZE
    size = -(-array.nbytes // page) * page
    memory = mmap.mmap(-1, size + page)
    whole = np.frombuffer(memory, np.uint8)
    if ctypes.CDLL(None).mprotect(ctypes.c_void_p(whole.ctypes.data + size), ctypes.c_size_t(page), 0):
        raise OSError("mprotect")
    copy = whole[size - array.nbytes : size].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
