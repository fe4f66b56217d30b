"""The current CUDA device: what the kernel is compiled for, and whether its driver can load it."""

from __future__ import annotations

import ctypes
from typing import Any

from gar_edge.runtime.engines.cuda.status import unpacked
from gar_edge.runtime.errors import GarBackendError

_REMEDY = "check nvidia-smi and the driver"


def current_architecture() -> int:
    """Compute capability of the current device, 87 for 8.7. Raises `GarBackendError` without one."""
    runtime = _cuda_python().runtime
    attribute = runtime.cudaDeviceAttr
    device = unpacked(runtime.cudaGetDevice(), _no_device)
    major, minor = (
        int(unpacked(runtime.cudaDeviceGetAttribute(part, device), _no_device))
        for part in (attribute.cudaDevAttrComputeCapabilityMajor, attribute.cudaDevAttrComputeCapabilityMinor)
    )
    return 10 * major + minor


def load_module(ptx: bytes) -> Any:
    """The driver's handle of a module, on the current device. Raises `GarBackendError` where the driver refuses it.

    PTX of a compiler newer than the driver is refused, which TensorRT would say only in the middle of a build.
    """
    cuda = _cuda_python()
    unpacked(cuda.runtime.cudaFree(0), _no_device)  # makes the device's context, which a module is loaded into
    image = ctypes.create_string_buffer(ptx)  # adds the zero at the end

    def refusal(status: Any) -> GarBackendError:
        version = cuda.runtime.cudaDriverGetVersion()[1]
        return GarBackendError(
            f"The driver cannot load the replay kernel ({status.name}): NVRTC or nvcc must not be newer than the "
            f"driver's CUDA {version // 1000}.{version % 1000 // 10}"
        )

    return unpacked(cuda.driver.cuModuleLoadData(ctypes.addressof(image)), refusal)


def unload_module(module: Any) -> None:
    """Free what `load_module` gave."""
    _cuda_python().driver.cuModuleUnload(module)


def _no_device(status: Any) -> GarBackendError:
    return GarBackendError(f"No CUDA device can be used ({status.name}): {_REMEDY}")


def _cuda_python() -> Any:
    try:
        import cuda.bindings
        import cuda.bindings.driver
        import cuda.bindings.runtime
    except ImportError as error:
        raise GarBackendError(f"cuda-python cannot be imported ({error}): pip install cuda-bindings") from error
    return cuda.bindings
