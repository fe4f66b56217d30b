"""The TensorRT that is installed: which one, how new, and what it can do."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gar_edge.runtime.bundle.manifest import GraphForm
from gar_edge.runtime.errors import GarBackendError

TENSORRT, RTX = "tensorrt", "tensorrt_rtx"  # back ends, and the Python modules of the same names

_NAMES = {TENSORRT: "TensorRT", RTX: "TensorRT-RTX"}
_INSTALL = {
    TENSORRT: "pip install 'gar-edge[tensorrt]'; on a Jetson it comes with JetPack (python3-libnvinfer)",
    RTX: "pip install 'gar-edge[rtx]'",
}
_KV_CACHE = (10, 15)  # the TensorRT that brought the KV cache layer, and with it the opset-24 decoder


@dataclass(frozen=True)
class Library:
    """One of the two TensorRTs, imported. They share their API but for what the properties below say."""

    name: str
    trt: Any

    @property
    def title(self) -> str:
        """Name and version, as shown to users."""
        return f"{_NAMES[self.name]} {self.version}"

    @property
    def version(self) -> str:
        return str(self.trt.__version__)

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT-RTX, which differs so:

        engines fit every GPU of their compute capability, are finished by compiling on it, and capture themselves into
        CUDA graphs; there are no plugins and no timing cache, and building needs no GPU.
        """
        return self.name == RTX

    @property
    def graph_form(self) -> GraphForm | None:
        """The form of the graphs that this version can read; None for the bundle's main one."""
        numbers = tuple(int(number) for number in re.findall(r"\d+", self.version)[:2])
        return None if self.is_rtx or numbers >= _KV_CACHE else GraphForm.COMPAT

    @cached_property
    def logger(self) -> Any:
        """A TensorRT logger that keeps errors for our own messages instead of printing them."""

        class Logger(self.trt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.errors: list[str] = []

            def log(self, severity: Any, msg: str) -> None:
                if severity <= type(severity).ERROR:
                    self.errors.append(msg)

        return Logger()

    def reason(self) -> str:
        """What TensorRT complained of first since the last call, in one line."""
        errors, self.logger.errors = self.logger.errors, []
        return " ".join(errors[0].split()) if errors else "it gave no reason"


def load_library(name: str) -> Library:
    """Import a TensorRT by its back end's name; `GarBackendError` says what to install."""
    try:
        return Library(name, importlib.import_module(name))
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == name
        reason = "is not installed" if missing else f"cannot be imported ({error})"
        raise GarBackendError(f"{_NAMES[name]} {reason}; {_INSTALL[name]}") from None
    except Exception as error:  # its package reports missing libraries in several ways
        raise GarBackendError(f"{_NAMES[name]} cannot be imported ({error}); {_INSTALL[name]}") from None
