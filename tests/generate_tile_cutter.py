"""Write the tile cutter's PTX: `make tile-cutter`, after `cut_tile.cu` has changed.

By the oldest NVRTC whose PTX all supported drivers read, for the oldest GPU: drivers compile it for newer ones.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
from pathlib import Path

from gar_edge.runtime.engines.cuda.cutter import PTX, SOURCE

OPTIONS = (b"--gpu-architecture=compute_70", b"-std=c++17")


def compiled(library: Path, source: bytes) -> str:
    """PTX of a source by an NVRTC, of its functions alone; `SystemExit` with its log where it refuses."""
    nvrtc = ctypes.CDLL(str(library))
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, SOURCE.name.encode(), 0, None, None)
    options = (ctypes.c_char_p * len(OPTIONS))(*OPTIONS)
    refused = nvrtc.nvrtcCompileProgram(program, len(OPTIONS), options)
    what = "ProgramLog" if refused else "PTX"
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, text)
    if refused:
        raise SystemExit(text.value.decode())
    lines = text.value.decode().splitlines()
    return "\n".join(line.rstrip() for line in lines if not line.startswith(("//", ".global"))).strip() + "\n"


def main(folder: Path) -> None:
    """folder: where NVRTC's wheel was installed."""
    (library,) = folder.glob("nvidia/cuda_nvrtc/lib/libnvrtc.so.*")
    source = SOURCE.read_bytes()
    head = f"// {SOURCE.name}, sha256 {hashlib.sha256(source).hexdigest()}\n"
    PTX.write_text(head + compiled(library, source), encoding="ascii")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
