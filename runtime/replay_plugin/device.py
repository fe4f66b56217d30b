"""What the kernel is compiled for."""

from __future__ import annotations

from gar_edge.runtime.errors import GarBackendError


def current_architecture() -> int:
    """Compute capability of the current CUDA device, 87 for 8.7. Raises `GarBackendError` without one."""
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise GarBackendError(f"cuda-python cannot be imported ({error}): pip install cuda-bindings") from error
    attribute = runtime.cudaDeviceAttr
    status, device = runtime.cudaGetDevice()
    numbers = []
    for part in (attribute.cudaDevAttrComputeCapabilityMajor, attribute.cudaDevAttrComputeCapabilityMinor):
        if status == runtime.cudaError_t.cudaSuccess:
            status, number = runtime.cudaDeviceGetAttribute(part, device)
            numbers.append(number)
    if status != runtime.cudaError_t.cudaSuccess:
        raise GarBackendError(f"No CUDA device can be used ({status.name}): check nvidia-smi and the driver")
    major, minor = numbers
    return 10 * int(major) + int(minor)
