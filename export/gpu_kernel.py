"""The replay kernel on a CUDA GPU without TensorRT, on torch's tensors: for tests and measurements."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gar_edge.runtime.engines.cuda.status import unpacked
from gar_edge.runtime.engines.roi_replay_plugin.compiler import find_compiler
from gar_edge.runtime.engines.roi_replay_plugin.device import current_architecture, load_module
from gar_edge.runtime.engines.roi_replay_plugin.kernel import ENTRY, Element, Variant, block_threads
from gar_edge.runtime.errors import GarBackendError

ELEMENTS = {
    torch.float32: Element.FLOAT32,
    torch.float16: Element.FLOAT16,
    torch.bfloat16: Element.BFLOAT16,
}


def require_gpu() -> None:
    """Raises `GarBackendError` where torch has no CUDA GPU."""
    if not torch.cuda.is_available():
        raise GarBackendError("No CUDA GPU that torch can use: this needs one, and a CUDA build of torch")


class GpuKernel:
    """The kernel for one type, tile side and scale, compiled for and loaded on the current device."""

    def __init__(self, dtype: torch.dtype, side: int, spatial_scale: float) -> None:
        """Raises `GarBackendError` without a GPU, without a compiler, or where the driver cannot read the PTX."""
        require_gpu()
        from cuda.bindings import driver

        self._driver: Any = driver
        self.element, self.side = ELEMENTS[dtype], side
        ptx = find_compiler().ptx(Variant(self.element, side, spatial_scale), current_architecture())
        self._function = self._checked(driver.cuModuleGetFunction(load_module(ptx), ENTRY.encode()))

    def __call__(self, features: Tensor, grid: Tensor, boxes: Tensor) -> Tensor:
        """Replay features [T,P,C], grid [2] int64 and boxes [R,4] float32 -> [R,P,C], on torch's current stream."""
        out = torch.empty((len(boxes), *features.shape[1:]), dtype=features.dtype, device=features.device)
        self.launch(features, grid, boxes, out)()
        return out

    def launch(self, features: Tensor, grid: Tensor, boxes: Tensor, out: Tensor) -> Callable[[], None]:
        """The launch alone, into `out`; all contiguous and on the device. It does not keep the tensors alive."""
        tiles, tokens, channels = features.shape
        blocks, threads = len(boxes) * tokens, block_threads(channels, self.element)
        pointers = [tensor.data_ptr() for tensor in (features, grid, boxes)]
        values = (*pointers, tiles, channels, out.data_ptr())
        kinds = (*(ctypes.c_void_p,) * 3, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)

        def run() -> None:
            stream = torch.cuda.current_stream().cuda_stream
            launched = self._driver.cuLaunchKernel(
                self._function, blocks, 1, 1, threads, 1, 1, 0, stream, (values, kinds), 0
            )
            self._checked(launched)

        return run

    @staticmethod
    def _checked(result: tuple[Any, ...]) -> Any:
        return unpacked(result, lambda status: GarBackendError(f"The replay kernel cannot be launched: {status.name}"))
