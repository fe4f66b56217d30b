"""Device memory in pieces: one range of addresses over several allocations, by CUDA's virtual memory calls.

From L4T 36.4.7 on NvMap refuses single allocations of hundreds of megabytes on Orin while memory is free, and gives the
same bytes in pieces. Only what is asked for is reserved: users met integrated GPUs that refuse ranges of 32 GiB.
CUDA's driver API, "Virtual Memory Management", has the rules.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from gar_edge.runtime.engines.cuda.api import DEVICE, Cuda, CudaError

PIECE = 64 << 20  # most bytes of one allocation


class VirtualMemory:
    """Ranges of addresses, each over pieces of `PIECE` bytes at most; not for several threads at once."""

    def __init__(self, cuda: Cuda, prop: Any, access: Any, granularity: int) -> None:
        self._cuda = cuda
        self._prop = prop
        self._access = access
        self._granularity = granularity
        self._ranges: dict[int, list[int]] = {}  # sizes of pieces by the range's address

    @classmethod
    def of(cls, cuda: Cuda) -> VirtualMemory | None:
        """The device's; None where it, its driver or cuda-python has no such calls."""
        driver = cuda.driver
        if driver is None:
            return None
        try:
            cuda.drive("cuInit", 0)
            attribute = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED
            if not int(cuda.drive("cuDeviceGetAttribute", attribute, cuda.drive("cuDeviceGet", DEVICE))):
                return None
            prop, access = driver.CUmemAllocationProp(), driver.CUmemAccessDesc()
            prop.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
            for location in (prop.location, access.location):
                location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
                location.id = DEVICE
            access.flags = driver.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
            minimum = driver.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
            granularity = int(cuda.drive("cuMemGetAllocationGranularity", prop, minimum))
        except (CudaError, AttributeError, RuntimeError):  # the last: cuda-python, of a call that the driver lacks
            return None
        return cls(cuda, prop, access, granularity)

    def allocate(self, size: int) -> int:
        """The address of at least `size` bytes; `CudaError`, and nothing held, where a piece is refused."""
        size = -(-size // self._granularity) * self._granularity
        most = max(PIECE // self._granularity, 1) * self._granularity
        pieces = [min(most, size - begin) for begin in range(0, size, most)]
        address = int(self._cuda.drive("cuMemAddressReserve", size, 0, 0, 0))
        mapped: list[int] = []
        try:
            for piece in pieces:
                self._map(address + sum(mapped), piece)
                mapped.append(piece)
            self._cuda.drive("cuMemSetAccess", address, size, [self._access], 1)
        except CudaError:
            with suppress(CudaError):
                self._give_back(address, mapped, size)
            raise
        self._ranges[address] = pieces
        return address

    def _map(self, address: int, size: int) -> None:
        handle = self._cuda.drive("cuMemCreate", size, self._prop, 0)
        try:
            self._cuda.drive("cuMemMap", address, size, 0, handle, 0)
        finally:
            self._cuda.drive("cuMemRelease", handle)  # the mapping keeps the memory

    def __contains__(self, address: int) -> bool:
        return address in self._ranges

    def free(self, address: int) -> None:
        """Give a range back that nothing queued reads or writes any more: unmapping waits for nobody."""
        pieces = self._ranges.pop(address)
        self._give_back(address, pieces, sum(pieces))

    def _give_back(self, address: int, mapped: list[int], size: int) -> None:
        begin = address
        for piece in mapped:
            self._cuda.drive("cuMemUnmap", begin, piece)
            begin += piece
        self._cuda.drive("cuMemAddressFree", address, size)
