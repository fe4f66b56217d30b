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

from gar_edge.runtime.engines.onnxruntime.exact_products import keep_exact, products_saturate
from gar_edge.runtime.engines.telemetry import import_onnxruntime
from gar_edge.runtime.files.onnx_product import INPUT, product_model

BYTES = 256 << 20  # of each array that is read or copied: far beyond any cache
ROWS, DEPTH, COLUMNS = 512, 2048, 4096  # of the products: a chunk of prefill through a layer of the 1B
ROUNDS = 5


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
    keep_exact(options, products_saturate(onnxruntime))
    random = np.random.default_rng(0)
    if dtype == np.int8:
        model = product_model(random.integers(-127, 127, (DEPTH, COLUMNS), np.int8), ROWS)
        a = random.integers(0, 255, (ROWS, DEPTH), np.uint8)
    else:
        model = product_model(random.random((DEPTH, COLUMNS), np.float32), ROWS)
        a = random.random((ROWS, DEPTH), np.float32)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {INPUT: a})
