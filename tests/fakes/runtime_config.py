"""How the fake TensorRT makes contexts: who gives them memory, and what TensorRT-RTX is told beside."""

from __future__ import annotations

import pickle
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.tensorrt import FakeTensorRt


class CudaGraphStrategy(IntEnum):
    """How TensorRT-RTX captures by itself."""

    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class ExecutionContextAllocationStrategy(IntEnum):
    """Who allocates what a context works in."""

    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class FakeRuntimeCache:
    """TensorRT-RTX's compiled kernels: of which model and profile."""

    def __init__(self, module: FakeTensorRt) -> None:
        self._module = module
        self.kernels: set[tuple[str, int]] = set()

    def serialize(self) -> bytes:
        return pickle.dumps((self._module.__version__, self._module.device, sorted(self.kernels)))

    def deserialize(self, blob: bytes) -> bool:
        try:
            version, device, kernels = pickle.loads(blob)
        except Exception:
            return False
        if (version, device) != (self._module.__version__, self._module.device):
            return False
        self.kernels |= set(kernels)
        return True


class FakeRuntimeConfig:
    """How TensorRT-RTX makes a context; read when it does."""

    def __init__(self, module: FakeTensorRt) -> None:
        self._module = module
        self.cuda_graph_strategy = CudaGraphStrategy.DISABLED
        self.allocation = ExecutionContextAllocationStrategy.STATIC
        self.cache: FakeRuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: ExecutionContextAllocationStrategy) -> None:
        self.allocation = strategy

    def create_runtime_cache(self) -> FakeRuntimeCache:
        return FakeRuntimeCache(self._module)

    def set_runtime_cache(self, cache: FakeRuntimeCache) -> bool:
        self.cache = cache
        return True
