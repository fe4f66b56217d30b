"""The current CUDA device: what the kernel is compiled for, and whether its driver can load it."""

from __future__ import annotations

import ctypes
from typing import Any

from gar_edge.runtime.errors import GarBackendError

_REMEDY = "check nvidia-smi and the driver"


def current_architecture() -> int:
    """Compute capability of the current device, 87 for 8.7. Raises `GarBackendError` without one."""
    runtime = _cuda_python().runtime
    attribute = runtime.cudaDeviceAttr
    status, device = runtime.cudaGetDevice()
    numbers = []
    for part in (attribute.cudaDevAttrComputeCapabilityMajor, attribute.cudaDevAttrComputeCapabilityMinor):
        if status == runtime.cudaError_t.cudaSuccess:
            status, number = runtime.cudaDeviceGetAttribute(part, device)
            numbers.append(number)
    if status != runtime.cudaError_t.cudaSuccess:
        raise GarBackendError(f"No CUDA device can be used ({status.name}): {_REMEDY}")
    major, minor = numbers
    return 10 * int(major) + int(minor)


def load_module(ptx: bytes) -> Any:
    """The driver's handle of a module, on the current device. Raises `GarBackendError` where the driver refuses it.

    PTX of a compiler newer than the driver is refused, which TensorRT would say only in the middle of a build.
    """
    cuda = _cuda_python()
    (status,) = cuda.runtime.cudaFree(0)  # makes the device's context, which a module is loaded into
    if status != cuda.runtime.cudaError_t.cudaSuccess:
        raise GarBackendError(f"No CUDA device can be used ({status.name}): {_REMEDY}")
    image = ctypes.create_string_buffer(ptx)  # adds the zero at the end
    status, module = cuda.driver.cuModuleLoadData(ctypes.addressof(image))
    if status != cuda.driver.CUresult.CUDA_SUCCESS:
        version = cuda.runtime.cudaDriverGetVersion()[1]
        raise GarBackendError(
            f"The driver cannot load the replay kernel ({status.name}): NVRTC or nvcc must not be newer than the "
            f"driver's CUDA {version // 1000}.{version % 1000 // 10}"
        )
    return module


def unload_module(module: Any) -> None:
    """Free what `load_module` gave."""
    _cuda_python().driver.cuModuleUnload(module)


def _cuda_python() -> Any:
    try:
        import cuda.bindings
        import cuda.bindings.driver
        import cuda.bindings.runtime
    except ImportError as error:
        raise GarBackendError(f"cuda-python cannot be imported ({error}): pip install cuda-bindings") from error
    return cuda.bindings
