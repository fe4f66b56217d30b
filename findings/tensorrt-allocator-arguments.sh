#!/usr/bin/env bash
# TensorRT-RTX's Python module documents that None says "no memory" where an allocator of one's own is asked for some.
#
# tensorrt-rtx 1.7.1.116 (PyPI, x86-64 Linux, Python 3.11, no GPU): `IGpuAsyncAllocator.allocate_async`: "If an allocation
# request cannot be satisfied, ``None`` should be returned." None is taken for no memory, but the module writes
# "[ERROR] Return value of allocate() could not be interpreted as an int" to stderr each time; 0 says the same silently.
#
# Seen on 2026-11-29; fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorrt-rtx==1.7.1.116
cat >"$folder/ask.py" <<'PYTHON'
import sys

import tensorrt_rtx as trt


class Allocator(trt.IGpuAsyncAllocator):
    def __init__(self, answer):
        trt.IGpuAsyncAllocator.__init__(self)
        self.answer = answer

    def allocate_async(self, size, alignment, flags, stream):
        return self.answer

    def deallocate_async(self, memory, stream):
        return True


assert "``None`` should be returned" in trt.IGpuAsyncAllocator.allocate_async.__doc__
trt.IGpuAllocator.allocate_async(Allocator(None if sys.argv[1] == "None" else 0), 512, 256, 0, 0)
PYTHON
check() { # WHAT EXPECTED FOUND
    if [ "$2" != "$3" ]; then echo "changed: $1: expected '$2', found '$3'"; exit 1; fi
    echo "$1: '$3'"
}
said="[ERROR] Return value of allocate() could not be interpreted as an int"
check None "$said" "$("$folder/venv/bin/python" "$folder/ask.py" None 2>&1)"
check 0 "" "$("$folder/venv/bin/python" "$folder/ask.py" 0 2>&1)"
