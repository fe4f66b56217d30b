"""What the processor can do at best: memory read and copied, products of float32 and int8, all cores busy."""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.engines.telemetry import import_onnxruntime
from gar_edge.runtime.files.onnx_file import varint

BYTES = 256 << 20  # of each array that is read or copied: far beyond any cache
ROWS, DEPTH, COLUMNS = 512, 2048, 4096  # of the products: a chunk of prefill through a layer of the 1B
ROUNDS = 5

# ONNX's numbers: elem_type of TensorProto, fields of its messages (onnx/onnx.proto).
_FLOAT, _UINT8, _INT8, _INT32 = 1, 2, 3, 6
_IR_VERSION, _OPSET = 8, 17


@dataclass(frozen=True)
class Roof:
    """Gigabytes a second, billions of operations a second (a multiply-add counts as two)."""

    read_gb_s: float
    copy_gb_s: float
    fp32_gop_s: float
    int8_gop_s: float


def measure_roof(threads: int) -> Roof:
    """The best of a few rounds; threads 0: all cores. Copies count what is read and what is written."""
    workers = threads or len(os.sched_getaffinity(0))
    source = np.ones(BYTES // 4, np.float32)
    target = np.empty_like(source)
    parts = [slice(*bounds) for bounds in _split(len(source), workers)]
    with ThreadPoolExecutor(workers) as pool:
        read = _best(lambda: list(pool.map(lambda part: source[part].max(), parts)))
        copy = _best(lambda: list(pool.map(lambda part: np.copyto(target[part], source[part]), parts)))
    products = 2 * ROWS * DEPTH * COLUMNS
    return Roof(
        read_gb_s=BYTES / read / 1e9,
        copy_gb_s=2 * BYTES / copy / 1e9,
        fp32_gop_s=products / _best(_product(np.dtype(np.float32), threads)) / 1e9,
        int8_gop_s=products / _best(_product(np.dtype(np.int8), threads)) / 1e9,
    )


def highest(roofs: Sequence[Roof]) -> Roof:
    """The best of each figure."""
    return Roof(*(max(getattr(roof, field.name) for roof in roofs) for field in dataclasses.fields(Roof)))


def _split(length: int, parts: int) -> list[tuple[int, int]]:
    edges = [length * part // parts for part in range(parts + 1)]
    return list(itertools.pairwise(edges))


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest round."""
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def _product(dtype: np.dtype[np.generic], threads: int) -> Callable[[], object]:
    """ONNX Runtime's own product of activations and constant weights, as the graphs use it."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    random = np.random.default_rng(0)
    if dtype == np.int8:
        a = random.integers(0, 255, (ROWS, DEPTH), np.uint8)
        b = random.integers(-127, 127, (DEPTH, COLUMNS), np.int8)
        model = _matmul("MatMulInteger", b, _UINT8, _INT8, _INT32)
    else:
        a = random.random((ROWS, DEPTH), np.float32)
        b = random.random((DEPTH, COLUMNS), np.float32)
        model = _matmul("MatMul", b, _FLOAT, _FLOAT, _FLOAT)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": a})


def _matmul(operator: str, weights: NDArray[np.generic], a: int, b: int, out: int) -> bytes:
    """An ONNX model of one product: `a` [ROWS,DEPTH] times constant weights."""
    tensor = b"".join(_field(1, size) for size in weights.shape) + _field(2, b) + _field(8, "b")
    node = _field(1, "a") + _field(1, "b") + _field(2, "y") + _field(4, operator)
    graph = (
        _field(1, node) + _field(2, "product") + _field(5, tensor + _field(9, weights.tobytes()))
        + _field(11, _value("a", a, (ROWS, DEPTH))) + _field(12, _value("y", out, (ROWS, COLUMNS)))
    )  # fmt: skip
    return _field(1, _IR_VERSION) + _field(7, graph) + _field(8, _field(1, "") + _field(2, _OPSET))


def _value(name: str, kind: int, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(_field(1, _field(1, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, dims)))


def _field(number: int, value: int | str | bytes) -> bytes:
    """One field of a protobuf message: a varint, or bytes with their length before them."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content
