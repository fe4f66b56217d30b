"""ONNX Runtime with a CUDA provider, faked: its kernels are ONNX Runtime's own on the processor, over a `FakeCuda`.

Stands in for the module `onnxruntime`. A run is work queued on the stream that the session was given, so whoever reads
too early gets what a GPU would give. A broken rule raises `Violation`:

- a session gets a live stream of ours, and neither falls back to other providers nor waits for the device by itself
- what is bound is live device memory, large enough, when it is bound and when the graph runs
- an update in place is bound to one address, and stays inside the cache
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
from fakes.cuda import FakeCuda, Kind, Violation

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class FakeBinding:
    """Addresses by name."""

    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda = cuda
        self.bound: dict[str, tuple[np.dtype[Any], tuple[int, ...], int]] = {}
        self.outputs: set[str] = set()

    def bind_input(
        self, name: str, device: str, index: int, dtype: np.dtype[Any], shape: tuple[int, ...], address: int
    ) -> None:
        if (device, index) != ("cuda", 0):
            raise Violation(f"{name} is bound to {device}:{index}: it would be copied at every run")
        self.bound[name] = np.dtype(dtype), tuple(shape), address
        self.check(name)

    def bind_output(self, name: str, *where: Any) -> None:
        self.bind_input(name, *where)
        self.outputs.add(name)

    def check(self, name: str) -> None:
        dtype, shape, address = self.bound[name]
        self._cuda.memory.check(address, int(np.prod(shape)) * dtype.itemsize, Kind.DEVICE, name)


class FakeSession:
    """A graph of the fake's."""

    def __init__(self, module: FakeOnnxRuntime, session: Any, options: dict[str, str]) -> None:
        self._module = module
        self._session = session
        self._options = options
        self._types = {value.name: value.type for value in (*session.get_inputs(), *session.get_outputs())}

    def get_providers(self) -> list[str]:
        return [CUDA, CPU] if self._module.starts else [CPU]

    def io_binding(self) -> FakeBinding:
        return FakeBinding(self._module.cuda)

    def run_with_iobinding(self, binding: FakeBinding, options: Any) -> None:
        if self._module.failure is not None:
            raise RuntimeError(self._module.failure)
        if options.get_run_config_entry("disable_synchronize_execution_providers") != "1":
            raise Violation("the run would wait for the device")
        if binding.bound.keys() != self._types.keys():
            raise Violation(f"not bound: {self._types.keys() - binding.bound.keys()}")
        for name in binding.outputs:
            source = binding.bound.get(name.removesuffix("_out")) if name.endswith("_out") else None
            if source is not None and source != binding.bound[name]:
                raise Violation(f"{name} is not bound to its input's memory: the whole cache would be copied")
        stream = self._module.cuda.stream(int(self._options["user_compute_stream"]))
        bound = dict(binding.bound)
        stream.put(lambda: self._compute(binding, bound))
        self._module.cuda.calls["enqueue"] += 1

    def _compute(self, binding: FakeBinding, bound: dict[str, tuple[np.dtype[Any], tuple[int, ...], int]]) -> None:
        real = self._session.io_binding()
        for name, (dtype, shape, address) in bound.items():
            binding.check(name)
            bind = real.bind_output if name in binding.outputs else real.bind_input
            bind(name, "cpu", 0, dtype, shape, address)
        if "write_index" in bound:
            batch, length, _ = bound["inputs_embeds"][1]
            begins = np.frombuffer((ctypes.c_int64 * batch).from_address(bound["write_index"][2]), np.int64)
            capacity = next(shape[2] for name, (_, shape, _) in bound.items() if name.startswith("key_cache"))
            if begins.min() < 0 or begins.max() > capacity - length:
                raise Violation(f"write_index {begins} and {length} positions leave the cache of {capacity}")
        self._session.run_with_iobinding(real)


class FakeOnnxRuntime(ModuleType):
    """The module. printed: what loading CUDA's libraries prints. starts: whether the provider can be used.

    cudnn: whether that library is there. failure: what every run raises. `options` are the provider options of each
    session, in order.
    """

    SessionOptions = onnxruntime.SessionOptions
    RunOptions = onnxruntime.RunOptions
    cuda_version = "13.0"

    def __init__(self, cuda: FakeCuda) -> None:
        super().__init__("onnxruntime")
        self.__version__ = "1.31.1"
        self.cuda = cuda
        self.providers = [CUDA, CPU]
        self.printed = ""
        self.starts = True
        self.cudnn = True
        self.failure: str | None = None
        self.options: list[dict[str, str]] = []

    def disable_telemetry_events(self) -> None:
        pass

    def get_available_providers(self) -> list[str]:
        return self.providers

    def preload_dlls(self) -> None:
        print(self.printed, end="")

    def InferenceSession(  # noqa: N802 - ONNX Runtime's name
        self, path: Path, session_options: Any, *, providers: list[Any], enable_fallback: int = 1
    ) -> Any:
        if enable_fallback:
            raise Violation("a session that fails would go on with other providers")
        if providers == [CPU]:
            return onnxruntime.InferenceSession(path, session_options, providers=providers)
        ((name, options),) = providers
        assert name == CUDA
        self.cuda.stream(int(options["user_compute_stream"]))
        self.options.append(options)
        return FakeSession(self, onnxruntime.InferenceSession(path, session_options, providers=[CPU]), options)
