"""What ONNX Runtime's back ends share: loading a graph, and binding one to memory by address."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gar_edge.runtime.engines.protocol import Array, Buffer, Run
from gar_edge.runtime.errors import GarBackendError
from gar_edge.runtime.files.utf8 import utf8_name

if TYPE_CHECKING:
    import onnxruntime

ERRORS_ONLY = 3  # onnxruntime's log level
_OUT_OF_MEMORY = ("failed to allocate memory", "out of memory", "bad_alloc", "bad allocation")

Provider = tuple[str, dict[str, str]]  # name, options


class Placed(Protocol):
    """A buffer whose memory has an address where the graph runs."""

    @property
    def address(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...


class OnnxRuntimeSession(ABC):
    """One graph, run over memory that is bound by address. device: as ONNX Runtime names it, "cpu" or "cuda"."""

    device: str

    def __init__(self, name: str, session: onnxruntime.InferenceSession) -> None:
        self.name = name
        self._session = session

    def bind(self, inputs: Mapping[str, Buffer | Array], outputs: Mapping[str, Buffer]) -> Run:
        binding = self._session.io_binding()
        alive = []  # the binding knows only addresses: the closure keeps the memory behind them
        for values, bind in ((inputs, binding.bind_input), (outputs, binding.bind_output)):
            for name, value in values.items():
                placed = self._place(value)
                bind(name, self.device, 0, placed.dtype, placed.shape, placed.address)
                alive.append(placed)

        def run(alive: object = alive) -> None:
            try:
                self._run(binding)
            except Exception as error:  # onnxruntime's exceptions share no base class below Exception
                raise failure(f"{self.name}: ONNX Runtime failed", error) from None

        return run

    def limit(self, name: str, axis: int) -> int | None:
        return None

    @abstractmethod
    def _place(self, value: Buffer | Array) -> Placed:
        """A value where the graph reads it."""

    @abstractmethod
    def _run(self, binding: Any) -> None:
        """Run once over bound memory."""


def load_graph(ort: Any, path: Path, options: Any, providers: Sequence[str | Provider]) -> Any:
    """A graph's `InferenceSession`; `GarBackendError` where ONNX Runtime refuses it.

    Without its fallback, which prints and goes on with other providers than those asked for.
    """
    options.log_severity_level = ERRORS_ONLY
    try:
        with utf8_name(path) as named:
            return ort.InferenceSession(named, options, providers=list(providers), enable_fallback=0)
    except Exception as error:  # as above
        raise failure(
            f"{path}: ONNX Runtime {ort.__version__} refuses the graph",
            error,
            "opset 24 needs 1.26 or newer, and that Python 3.11",
        ) from None


def failure(what: str, error: Exception, remedy: str = "") -> GarBackendError:
    """One line for what ONNX Runtime raised. remedy: what to do, unless memory ran out."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if any(sign in reason.lower() for sign in _OUT_OF_MEMORY):
        remedy = "out of memory: use a smaller or quantised bundle, fewer tiles or fewer new tokens"
    return GarBackendError(f"{what} ({reason})" + (f"; {remedy}" if remedy else ""))
