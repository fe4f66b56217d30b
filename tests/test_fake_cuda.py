"""CUDA's fake: each broken rule is caught, what follows the rules works, and its names are the real one's."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import FakeGpu
from fake_cuda import FakeCuda, FakeStream, Violation
from needs import from_dev


@pytest.mark.parametrize("name", ["cudaMalloc", "cudaMallocHost", "cudaFree", "cudaFreeHost", "cudaStreamSynchronize"])
def test_nothing_waits_or_allocates_inside_a_capture(cuda: FakeCuda, stream: FakeStream, name: str) -> None:
    address = {"cudaFree": cuda.cudaMalloc(8)[1], "cudaFreeHost": cuda.cudaMallocHost(8)[1]}
    cuda.cudaStreamBeginCapture(stream, 1)
    argument = stream if name == "cudaStreamSynchronize" else address.get(name, 8)
    with pytest.raises(Violation, match="while a stream is captured"):
        getattr(cuda, name)(argument)


def test_captures_begin_and_end_once(cuda: FakeCuda, stream: FakeStream) -> None:
    with pytest.raises(Violation, match="not captured"):
        cuda.cudaStreamEndCapture(stream)
    cuda.cudaStreamBeginCapture(stream, 1)
    with pytest.raises(Violation, match="captured already"):
        cuda.cudaStreamBeginCapture(stream, 1)


def test_a_capture_binds_its_own_thread(cuda: FakeCuda, stream: FakeStream) -> None:
    """As `cudaStreamCaptureModeThreadLocal` says: others may allocate, but not wait for or end what is captured."""
    cuda.cudaStreamBeginCapture(stream, 1)
    with ThreadPoolExecutor(1) as other:
        address = other.submit(cuda.cudaMalloc, 8).result()[1]
        other.submit(cuda.cudaFree, address).result()
        with pytest.raises(Violation, match="of a stream that is captured"):
            other.submit(cuda.cudaStreamSynchronize, stream).result()
        with pytest.raises(Violation, match="another thread captures"):
            other.submit(cuda.cudaStreamEndCapture, stream).result()
    cuda.cudaStreamEndCapture(stream)
    cuda.cudaMalloc(8)


def test_copies_happen_when_the_stream_is_waited_for(cuda: FakeCuda, stream: FakeStream) -> None:
    pinned, back, device = cuda.cudaMallocHost(8)[1], cuda.cudaMallocHost(8)[1], cuda.cudaMalloc(8)[1]
    value = ctypes.c_int64.from_address(pinned)
    value.value = 5
    cuda.cudaMemcpyAsync(device, pinned, 8, 1, stream)
    cuda.cudaMemcpyAsync(back, device, 8, 2, stream)
    value.value = 6  # too early: the copy has not happened yet
    assert ctypes.c_int64.from_address(back).value not in (5, 6)
    cuda.cudaStreamSynchronize(stream)
    assert ctypes.c_int64.from_address(back).value == 6


@pytest.mark.parametrize("case", ["pageable source", "pageable target", "too long", "host to host", "freed"])
def test_copies_are_checked(cuda: FakeCuda, stream: FakeStream, case: str) -> None:
    pinned, device = cuda.cudaMallocHost(8)[1], cuda.cudaMalloc(8)[1]
    pageable = np.zeros(8, np.uint8).ctypes.data
    if case == "freed":
        cuda.cudaFree(device)
    arguments: dict[str, tuple[int, int, int, int]] = {
        "pageable source": (device, pageable, 8, 1),
        "pageable target": (pageable, device, 8, 2),
        "too long": (device, pinned, 9, 1),
        "host to host": (pinned, pinned, 8, 3),
        "freed": (device, pinned, 8, 1),
    }
    with pytest.raises(Violation):
        cuda.cudaMemcpyAsync(*arguments[case], stream)


def test_memory_is_freed_once_and_as_what_it_is(cuda: FakeCuda) -> None:
    device = cuda.cudaMalloc(8)[1]
    with pytest.raises(Violation, match="never allocated as pinned"):
        cuda.cudaFreeHost(device)
    cuda.cudaFree(device)
    with pytest.raises(Violation, match="freed twice"):
        cuda.cudaFree(device)


def test_destroyed_streams_are_gone(cuda: FakeCuda, stream: FakeStream) -> None:
    cuda.cudaStreamDestroy(stream)
    with pytest.raises(Violation, match="not one that was created"):
        cuda.cudaStreamSynchronize(stream)
    with pytest.raises(Violation, match="blocking stream"):
        cuda.cudaStreamCreateWithFlags(0)


def test_the_real_cuda_python_has_what_the_fake_has(fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    runtime = pytest.importorskip("cuda.bindings.runtime", reason=from_dev("cuda-bindings"))
    faked = [name for name in dir(type(fake_gpu.cuda)) if name.startswith("cuda")]
    assert len(faked) > 20
    assert not [name for name in faked if not hasattr(runtime, name)]
    for kind in ("cudaMemcpyKind", "cudaStreamCaptureMode", "cudaDeviceAttr"):
        assert {entry.name: entry.value for entry in getattr(fake_gpu.cuda, kind)}.items() <= {
            entry.name: entry.value for entry in getattr(runtime, kind)
        }.items()
    status, _ = runtime.cudaGetDeviceCount()
    assert int(status) == status.value
    assert isinstance(runtime.cudaGetErrorString(status)[1], bytes)
