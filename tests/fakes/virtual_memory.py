# ruff: noqa: N802 - names are CUDA's own
"""CUDA's driver, as far as its virtual memory calls go, faked over a `FakeCuda` as strictly as they are documented.

`fakes.cuda_driver` makes a module of it. A broken rule raises `Violation`:

- the driver is initialised first; sizes, addresses and offsets are multiples of the granularity
- memory is mapped into a range that is reserved and free there, by a handle that is not released; queued work may use
  it once access was set, over a range that is mapped without a gap
- what is unmapped is one whole mapping, and nothing is queued that could use it; a range that is freed is one whole
  reservation, and nothing is mapped there
- handles are released once; memory counts until its handle is released and its mapping gone
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
from fakes.cuda import OUT_OF_MEMORY, Allocation, FakeCuda, FakeStatus, Kind, Violation

NOT_SUPPORTED = 801
GARBAGE = 1 << 20  # bytes: larger ranges are left as the system gives them, so that they take no memory


@dataclass
class Handle:
    size: int
    released: bool = False
    mapped: bool = False


@dataclass
class Reservation:
    """mappings: size and handle by address. usable: the memory as queued work sees it, once access was set."""

    address: int
    size: int
    memory: np.ndarray
    mappings: dict[int, tuple[int, Handle]] = field(default_factory=dict)
    usable: Allocation | None = None


def _enum(name: str, **members: int) -> Any:
    return IntEnum(name, members)


class FakeVirtualMemory:
    """The calls. supported: whether the device has them. widest: most bytes of a reservation, None for any."""

    CUdevice_attribute = _enum("CUdevice_attribute", CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED=102)
    CUmemAllocationType = _enum("CUmemAllocationType", CU_MEM_ALLOCATION_TYPE_PINNED=1)
    CUmemLocationType = _enum("CUmemLocationType", CU_MEM_LOCATION_TYPE_DEVICE=1)
    CUmemAccess_flags = _enum("CUmemAccess_flags", CU_MEM_ACCESS_FLAGS_PROT_READWRITE=3)
    CUmemAllocationGranularity_flags = _enum("CUmemAllocationGranularity_flags", CU_MEM_ALLOC_GRANULARITY_MINIMUM=0)

    def __init__(self, cuda: FakeCuda, granularity: int = 1 << 21) -> None:
        self.cuda = cuda
        self.granularity = granularity
        self.supported = True
        self.widest: int | None = None
        self.initialised = False
        self.reservations: dict[int, Reservation] = {}
        self.gone: list[Reservation] = []  # their addresses stay taken

    # What they are given

    def CUmemAllocationProp(self) -> SimpleNamespace:
        return SimpleNamespace(type=None, location=SimpleNamespace(type=None, id=None))

    def CUmemAccessDesc(self) -> SimpleNamespace:
        return SimpleNamespace(flags=None, location=SimpleNamespace(type=None, id=None))

    # Devices

    def cuInit(self, flags: int) -> tuple[Any, ...]:
        self.initialised = True
        return (FakeStatus.cudaSuccess,)

    def cuDeviceGet(self, ordinal: int) -> tuple[Any, ...]:
        self._ready()
        return FakeStatus.cudaSuccess, ordinal

    def cuDeviceGetAttribute(self, attribute: int, device: int) -> tuple[Any, ...]:
        self._ready()
        return FakeStatus.cudaSuccess, int(self.supported)

    def cuMemGetAllocationGranularity(self, prop: SimpleNamespace, option: int) -> tuple[Any, ...]:
        self._check_prop(prop)
        return FakeStatus.cudaSuccess, self.granularity

    # Addresses

    def cuMemAddressReserve(self, size: int, alignment: int, address: int, flags: int) -> tuple[Any, ...]:
        self._ready()
        self._check_multiple("a reservation", size)
        if alignment or address or flags:
            raise Violation("a reservation of anything but the default")
        if self.widest is not None and size > self.widest:
            return NOT_SUPPORTED, None
        memory = np.empty(size + self.granularity, np.uint8)
        begin = memory.ctypes.data + -memory.ctypes.data % self.granularity
        self.reservations[begin] = Reservation(begin, size, memory)
        return FakeStatus.cudaSuccess, begin

    def cuMemAddressFree(self, address: int, size: int) -> tuple[Any, ...]:
        found = self.reservations.pop(address, None)
        if found is None or found.size != size:
            raise Violation("what is freed is not a whole reservation")
        if found.mappings:
            raise Violation("a reservation is freed that something is mapped into")
        self.gone.append(found)
        return (FakeStatus.cudaSuccess,)

    # Memory

    def cuMemCreate(self, size: int, prop: SimpleNamespace, flags: int) -> tuple[Any, ...]:
        self._check_prop(prop)
        self._check_multiple("an allocation", size)
        if flags or size == 0:
            raise Violation("an allocation of nothing, or with flags")
        if not self.cuda.has_room(size):
            return OUT_OF_MEMORY, None
        self.cuda.in_pieces += size
        return FakeStatus.cudaSuccess, Handle(size)

    def cuMemRelease(self, handle: Handle) -> tuple[Any, ...]:
        if handle.released:
            raise Violation("a handle is released twice")
        handle.released = True
        self._count(handle)
        return (FakeStatus.cudaSuccess,)

    def cuMemMap(self, address: int, size: int, offset: int, handle: Handle, flags: int) -> tuple[Any, ...]:
        self._check_multiple("a mapping", address, size, offset)
        if handle.released or flags or offset + size > handle.size:
            raise Violation("a mapping of memory that is released, or smaller")
        found = self._reservation(address, size)
        for begin, (length, _) in found.mappings.items():
            if begin < address + size and address < begin + length:
                raise Violation("memory is mapped where some is already")
        found.mappings[address] = (size, handle)
        handle.mapped = True
        return (FakeStatus.cudaSuccess,)

    def cuMemSetAccess(self, address: int, size: int, access: list[SimpleNamespace], count: int) -> tuple[Any, ...]:
        found = self._reservation(address, size)
        if count != len(access) or any((one.flags, one.location.type, one.location.id) != (3, 1, 0) for one in access):
            raise Violation("access that is not the device's, to read and write")
        at = address
        while at < address + size:
            if at not in found.mappings:
                raise Violation("access is set where nothing is mapped")
            at += found.mappings[at][0]
        found.usable = Allocation(address, size, Kind.DEVICE, found.memory, in_pieces=True)
        if size <= GARBAGE:
            found.memory[:] = 0xCD
        self.cuda.memory.allocations.append(found.usable)
        return (FakeStatus.cudaSuccess,)

    def cuMemUnmap(self, address: int, size: int) -> tuple[Any, ...]:
        found = self._reservation(address, size)
        if found.mappings.get(address, (0, None))[0] != size:
            raise Violation("what is unmapped is not one whole mapping")
        if found.usable is not None:
            if any(stream.queue for stream in self.cuda.streams.values()):
                raise Violation("memory is unmapped while work is queued")
            found.usable.freed = True
        _, handle = found.mappings.pop(address)
        handle.mapped = False
        self._count(handle)
        return (FakeStatus.cudaSuccess,)

    def _count(self, handle: Handle) -> None:
        if handle.released and not handle.mapped:
            self.cuda.in_pieces -= handle.size

    def _reservation(self, address: int, size: int) -> Reservation:
        for found in self.reservations.values():
            if found.address <= address and address + size <= found.address + found.size:
                return found
        raise Violation("addresses that are not reserved")

    def _check_prop(self, prop: SimpleNamespace) -> None:
        self._ready()
        if (prop.type, prop.location.type, prop.location.id) != (1, 1, 0):
            raise Violation("memory that is not the device's")

    def _check_multiple(self, what: str, *numbers: int) -> None:
        if any(number % self.granularity for number in numbers):
            raise Violation(f"{what} is no multiple of the granularity")

    def _ready(self) -> None:
        if not self.initialised:
            raise Violation("the driver is not initialised")
