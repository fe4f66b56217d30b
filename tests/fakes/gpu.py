"""A machine with both TensorRTs and one GPU, all faked."""

from __future__ import annotations

from dataclasses import dataclass

from fakes.cuda import FakeCuda
from fakes.cuda_driver import FakeDriver
from fakes.tensorrt import FakeTensorRt


@dataclass(frozen=True)
class FakeGpu:
    """A machine with both TensorRTs and one GPU, all faked."""

    cuda: FakeCuda
    driver: FakeDriver
    tensorrt: FakeTensorRt
    rtx: FakeTensorRt
