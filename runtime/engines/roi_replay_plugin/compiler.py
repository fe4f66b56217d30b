"""The replay kernel to PTX, by NVRTC or by nvcc, whichever the machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gar_edge.runtime.engines.cuda.status import unpacked
from gar_edge.runtime.engines.roi_replay_plugin.kernel import SOURCE, SOURCES, Variant
from gar_edge.runtime.errors import GarBackendError

_REMEDY = "pip install cuda-bindings and nvidia-cuda-nvrtc of the driver's CUDA version, or put CUDA's nvcc on PATH"
_TOOLKIT = Path("/usr/local/cuda")  # where CUDA's installer and JetPack put it, not always on PATH


class Compiler(Protocol):
    """Something that compiles CUDA C++."""

    def ptx(self, variant: Variant, architecture: int) -> bytes:
        """The kernel's PTX for a compute capability (87 for 8.7); `GarBackendError` has the compiler's words."""


def find_compiler() -> Compiler:
    """NVRTC if it can be loaded, else nvcc. Raises `GarBackendError` where there is neither."""
    try:
        return Nvrtc()
    except GarBackendError as missing:
        nvcc = find_nvcc()
        if nvcc is None:
            raise GarBackendError(f"No CUDA compiler for the replay plugin ({missing}): {_REMEDY}") from missing
        return Nvcc(nvcc)


def find_nvcc() -> str | None:
    """Path of nvcc: on PATH, in `CUDA_HOME`, or where CUDA's installer puts it."""
    roots = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    folders = [str(root / "bin") for root in (*roots, _TOOLKIT)]
    return shutil.which("nvcc") or shutil.which("nvcc", path=os.pathsep.join(folders))


class Nvrtc:
    """CUDA's runtime compiler, through cuda-python; it needs no host compiler and no headers."""

    def __init__(self) -> None:
        """Raises `GarBackendError` where cuda-python or the library is missing."""
        try:
            from cuda.bindings import nvrtc

            nvrtc.nvrtcVersion()  # the library itself is loaded by the first call
        except (ImportError, RuntimeError) as error:
            raise GarBackendError(f"NVRTC cannot be loaded: {error}") from error
        self._nvrtc: Any = nvrtc

    def ptx(self, variant: Variant, architecture: int) -> bytes:
        """The kernel's PTX, without the terminating zero."""
        nvrtc = self._nvrtc
        options = [option.encode() for option in _options(variant, architecture)]
        program = self._checked(nvrtc.nvrtcCreateProgram(SOURCE.read_bytes(), SOURCE.name.encode(), 0, [], []))
        try:
            (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
            if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
                log = self._text(program, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog)
                raise _refused("NVRTC", architecture, log.decode(errors="replace"))
            return self._text(program, nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)
        finally:
            nvrtc.nvrtcDestroyProgram(program)

    def _text(self, program: Any, size_of: Any, read: Any) -> bytes:
        text = bytearray(self._checked(size_of(program)))
        self._checked(read(program, text))
        return bytes(text.rstrip(b"\0"))

    @staticmethod
    def _checked(result: tuple[Any, ...]) -> Any:
        return unpacked(result, lambda status: GarBackendError(f"NVRTC failed on the replay kernel: {status.name}"))


@dataclass(frozen=True)
class Nvcc:
    """The CUDA toolkit's compiler driver, a program; it needs a host compiler."""

    program: str

    def ptx(self, variant: Variant, architecture: int) -> bytes:
        """The kernel's PTX."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "kernel.ptx"
            files = [str(SOURCE), "--output-file", str(out)]
            command = [self.program, "--ptx", *_options(variant, architecture), *files]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise _refused("nvcc", architecture, done.stderr)
            return out.read_bytes()


def _options(variant: Variant, architecture: int) -> list[str]:
    defines = [f"--define-macro={name}={text}" for name, text in variant.defines.items()]
    return [f"--gpu-architecture=compute_{architecture}", "-std=c++17", f"--include-path={SOURCES}", *defines]


def _refused(compiler: str, architecture: int, log: str) -> GarBackendError:
    lines = [line.strip() for line in log.splitlines() if line.strip()] or ["no message"]
    said = next((line for line in lines if "error" in line), lines[0])
    return GarBackendError(f"{compiler} could not compile the replay kernel for sm_{architecture}: {said}")
