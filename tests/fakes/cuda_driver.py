# ruff: noqa: N802 - names are CUDA's own
"""CUDA's driver, faked: it loads PTX, takes launches as its entries want them, and computes the tile cutter in NumPy;
its virtual memory is `fakes.virtual_memory`.

Stands in for the module `cuda.bindings.driver`, over a `FakeCuda`, on whose streams launches wait. A broken rule raises
`Violation`:

- a thread that calls it has made the device's context its own
- a launch's values have the types of the entry's parameters, its sizes are those of a GPU
- what a kernel reads and writes is live memory of the device, or pinned memory of the host, and large enough, when it
  is launched and when it runs
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import ModuleType
from typing import Any

import numpy as np
from fakes.cuda import OUT_OF_MEMORY, FakeCuda, Kind, Violation
from fakes.virtual_memory import NOT_SUPPORTED, FakeVirtualMemory

_TYPES = {"u64": ctypes.c_void_p, "u32": ctypes.c_int}
_AXIS = ("first", "weights", "source", "target", "taps", "begin")
ENTRIES = {
    "gar_cut_across": ("picture", *_AXIS, "width", "top", "rows", "wide"),
    "gar_cut_down": ("wide", *_AXIS, "height", "top", "rows", "width", "tile"),
}
Arguments = Mapping[str, int]


class Status(IntEnum):
    """CUresult, as far as it is needed."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_UNSUPPORTED_PTX_VERSION = 222


@dataclass(frozen=True)
class Module:
    """Parameters of each entry, as the PTX has them."""

    entries: Mapping[str, list[str]]


class FakeDriver(FakeVirtualMemory, ModuleType):
    """The module. newest: the PTX version that it reads. launches: how many there were of each entry."""

    def __init__(self, cuda: FakeCuda, granularity: int = 1 << 21) -> None:
        ModuleType.__init__(self, "cuda.bindings.driver")
        FakeVirtualMemory.__init__(self, cuda, granularity)
        self.newest = (8, 0)
        self.launches = dict.fromkeys(ENTRIES, 0)

    def cuGetErrorString(self, status: int) -> tuple[Any, ...]:
        texts = {
            OUT_OF_MEMORY: b"out of memory",
            NOT_SUPPORTED: b"operation not supported",
            Status.CUDA_ERROR_UNSUPPORTED_PTX_VERSION: b"the provided PTX was compiled with an unsupported toolchain.",
        }
        return Status.CUDA_SUCCESS, texts[int(status)]

    def cuModuleLoadData(self, address: int) -> tuple[Any, ...]:
        self._check_context()
        text = ctypes.string_at(address).decode()
        (version,) = re.findall(r"^\.version (\d+)\.(\d+)$", text, re.MULTILINE)
        if tuple(map(int, version)) > self.newest:
            return Status.CUDA_ERROR_UNSUPPORTED_PTX_VERSION, None
        found = re.findall(r"\.visible \.entry (\w+)\((.*?)\)", text, re.DOTALL)
        return Status.CUDA_SUCCESS, Module({name: re.findall(r"\.param \.(\w+)", listed) for name, listed in found})

    def cuModuleGetFunction(self, module: Module, name: bytes) -> tuple[Any, ...]:
        return Status.CUDA_SUCCESS, (name.decode(), module.entries[name.decode()])

    def cuLaunchKernel(
        self, function: tuple[str, list[str]], gx: int, gy: int, gz: int, bx: int, by: int, bz: int, shared: int,
        stream: int, arguments: tuple[tuple[int, ...], tuple[Any, ...]], extra: int,
    ) -> tuple[Any, ...]:  # fmt: skip
        self._check_context()
        name, parameters = function
        values, kinds = arguments
        if list(kinds) != [_TYPES[one] for one in parameters]:
            raise Violation(f"{name} takes {parameters}")
        if not (0 < gx < 2**31 and 0 < gy < 2**16 and gz == 1 and 0 < bx * by * bz <= 1024):
            raise Violation(f"{name}: no GPU launches {gx}x{gy}x{gz} blocks of {bx}x{by}x{bz}")
        given = dict(zip(ENTRIES[name], values, strict=True))
        lines = given["rows"] if name == "gar_cut_across" else 3 * given["height"]
        if gx * by < lines or gy * bx < given["width"]:
            raise Violation(f"{name}: {gx}x{gy} blocks do not cover {lines} lines of {given['width']}")
        compute: Callable[[Arguments], None] = self._across if name == "gar_cut_across" else self._down
        for memory in self._tensors(given):
            self._check(*memory)
        self.cuda.stream(stream).put(lambda: compute(given))
        self.launches[name] += 1
        return (Status.CUDA_SUCCESS,)

    def _across(self, given: Arguments) -> None:
        picture, first, weights, wide = (self._array(*one) for one in self._tensors(given))
        rows = picture[given["top"] :].transpose(2, 0, 1)
        wide[...] = _summed(rows, first, weights, given)

    def _down(self, given: Arguments) -> None:
        wide, first, weights, tile = (self._array(*one) for one in self._tensors(given))
        whole = np.zeros((3, given["width"], given["source"]), np.float32)  # rows that it does not read stay zero
        whole[:, :, given["top"] : given["top"] + given["rows"]] = wide.transpose(0, 2, 1)
        summed = _summed(whole, first, weights, given | {"width": given["height"]}).transpose(0, 2, 1)
        tile[...] = np.clip(np.rint(summed), 0, 255).astype(np.uint8)

    def _tensors(self, given: Arguments) -> list[tuple[int, tuple[int, ...], Any]]:
        """Address, shape and type of what a kernel reads and, last, writes."""
        axis: list[tuple[int, tuple[int, ...], Any]] = [
            (given["first"], (given["target"],), np.int32),
            (given["weights"], (given["taps"], given["target"]), np.float32),
        ]
        wide = given["wide"], (3, given["rows"], given["width"]), np.float32
        if "picture" in given:
            return [(given["picture"], (given["top"] + given["rows"], given["source"], 3), np.uint8), *axis, wide]
        return [wide, *axis, (given["tile"], (3, given["height"], given["width"]), np.uint8)]

    def _check(self, address: int, shape: tuple[int, ...], dtype: Any) -> None:
        found = self.cuda.memory.find(address)
        kind = Kind.PINNED if found is not None and found.kind is Kind.PINNED else Kind.DEVICE
        self.cuda.memory.check(address, int(np.prod(shape)) * np.dtype(dtype).itemsize, kind, "tile cutter")

    def _array(self, address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        self._check(address, shape, dtype)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype).reshape(shape)

    def _check_context(self) -> None:
        if threading.get_ident() not in self.cuda.current:
            raise Violation("the thread has no context of the device's")


def _summed(
    samples: np.ndarray[Any, Any], first: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], given: Arguments
) -> np.ndarray[Any, Any]:
    """The last axis resized: products added in order, in float64 and rounded to float32 after each."""
    span = slice(given["begin"], given["begin"] + given["width"])
    low, sums = first[span], np.zeros((*samples.shape[:2], given["width"]), np.float32)
    for tap in range(given["taps"]):
        inside = low + tap < given["source"]
        values = samples[..., np.minimum(low + tap, given["source"] - 1)].astype(np.float64)
        sums = np.where(inside, (weights[tap, span] * values + sums).astype(np.float32), sums)
    return sums
