"""CUDA's runtime through cuda-python: results unpacked, failures raised, the device described."""

from __future__ import annotations

import importlib
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gar_edge.runtime.engines.cuda.status import unpacked
from gar_edge.runtime.engines.host_memory import available_memory
from gar_edge.runtime.errors import GarBackendError

# CUDA's runtime and its driver, from cuda-python 12.6 on, and before (JetPack 6's CUDA 12).
_MODULES = (("cuda.bindings.runtime", "cuda.bindings.driver"), ("cuda.cudart", "cuda.cuda"))
DEVICE = 0  # CUDA_VISIBLE_DEVICES chooses another


@dataclass(frozen=True)
class Device:
    """A GPU. compute_capability: "8.7". name None: any GPU of that capability."""

    compute_capability: str
    name: str | None = None

    def __str__(self) -> str:
        return f"{self.name or 'any GPU'} of compute capability {self.compute_capability}"


class Cuda:
    """CUDA's runtime API on the first visible device. driver: its driver API, None where cuda-python has none."""

    def __init__(self, api: Any, driver: Any = None) -> None:
        self.api = api
        self.driver = driver

    @classmethod
    def load(cls) -> Cuda:
        """Import cuda-python, in its newer or its older layout."""
        for runtime, driver in _MODULES:
            try:
                api = importlib.import_module(runtime)
            except ImportError:
                continue
            with suppress(ImportError):
                return cls(api, importlib.import_module(driver))
            return cls(api)
        raise GarBackendError(
            "cuda-python is not installed; pip install cuda-python of the major version of your CUDA "
            "('gar-edge[tensorrt]' and 'gar-edge[rtx]' bring it)"
        )

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the runtime; its result without the status, which raises `GarBackendError`."""

        def refusal(status: Any) -> CudaError:
            text = self.api.cudaGetErrorString(status)[1]
            return CudaError(f"{name} failed: {text.decode() if isinstance(text, bytes) else text}", int(status))

        return unpacked(getattr(self.api, name)(*arguments), refusal)

    def drive(self, name: str, *arguments: Any) -> Any:
        """`call` for a function of the driver."""

        def refusal(status: Any) -> CudaError:
            text = self.driver.cuGetErrorString(status)[1]
            return CudaError(f"{name} failed: {text.decode() if isinstance(text, bytes) else text}", int(status))

        return unpacked(getattr(self.driver, name)(*arguments), refusal)

    def device(self) -> Device:
        """The GPU that everything runs on; `GarBackendError` where there is none."""
        try:
            self.call("cudaGetDeviceCount")
        except CudaError as error:
            raise GarBackendError(f"no NVIDIA GPU can be used here ({error})") from None
        major, minor = self._attribute("ComputeCapabilityMajor"), self._attribute("ComputeCapabilityMinor")
        name = self.call("cudaGetDeviceProperties", DEVICE).name
        return Device(f"{major}.{minor}", name.decode() if isinstance(name, bytes) else str(name))

    def use(self) -> None:
        """Make the device's context this thread's, which the driver's own functions take for granted."""
        self.call("cudaSetDevice", DEVICE)

    @property
    def shares_memory(self) -> bool:
        """Whether the GPU's memory is the processor's, as a Jetson's is."""
        return bool(self._attribute("Integrated"))

    def free_memory(self) -> int:
        """Bytes that can still be allocated. A Jetson's GPU shares the memory of its CPU, and caches count as free."""
        free, _ = self.call("cudaMemGetInfo")
        shared = available_memory() if self.shares_memory else 0
        return shared or int(free)

    def _attribute(self, name: str) -> int:
        return int(self.call("cudaDeviceGetAttribute", getattr(self.api.cudaDeviceAttr, f"cudaDevAttr{name}"), DEVICE))


class CudaError(GarBackendError):
    """A call of CUDA failed; `status` is its number."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
