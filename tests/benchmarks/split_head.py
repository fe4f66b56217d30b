"""What a split head costs a decode step on the processor: the same decoder with one product and with several, in turn.

    python tests/benchmarks/split_head.py -m BUNDLE

Of a quantised bundle the form for processors is taken, which an export leaves whole.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx_ir as ir
import typer

from gar_edge.export.split_head import PRODUCT_BYTES, split_head
from gar_edge.runtime.bundle.bundle import Bundle
from gar_edge.runtime.bundle.manifest import GraphForm, Port
from gar_edge.runtime.engines.telemetry import import_onnxruntime


def main(
    bundle: Annotated[Path, typer.Option("-m", "--model", help="Bundle with a whole head.")],
    rounds: Annotated[int, typer.Option(min=2)] = 30,
    slots: Annotated[int, typer.Option(min=2, help="Of the cache.")] = 512,
    threads: Annotated[int, typer.Option(help="0: ONNX Runtime's choice.")] = 0,
    most: Annotated[int, typer.Option(min=1, help="Bytes of one product's weights.")] = PRODUCT_BYTES,
) -> None:
    """Print the median step of both and the median of the rounds' ratios."""
    graph = Bundle.open(bundle).manifest.for_engine(GraphForm.CPU).graphs["decoder"]
    model = ir.load(bundle / graph.files[0])
    whole = ir.to_proto(model).SerializeToString()
    split_head(model.graph, most)
    products = sum(name.startswith(("head.", "head_q.")) for name in model.graph.initializers)
    sessions = [_session(content, bundle, threads) for content in (whole, ir.to_proto(model).SerializeToString())]
    feed = {port.name: _input(port, slots) for port in graph.inputs}
    first, second = (session.run(["logits", "tokens"], feed) for session in sessions)
    print(f"{products} products; logits {'the same' if np.array_equal(first[0], second[0]) else 'differ'}")
    times: list[list[float]] = [[], []]
    for index in range(rounds):
        for which in (0, 1) if index % 2 else (1, 0):
            begin = time.perf_counter()
            sessions[which].run(["logits", "tokens"], feed)
            times[which].append(time.perf_counter() - begin)
    ratio = statistics.median(after / before for before, after in zip(*times, strict=True))
    medians = [statistics.median(values) * 1e3 for values in times]
    print(f"whole {medians[0]:.1f} ms, split {medians[1]:.1f} ms, ratio {ratio:.3f}")


def _session(content: bytes, folder: Path, threads: int) -> Any:
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3  # caches that are not bound are copied, in both alike
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _input(port: Port, slots: int) -> np.ndarray:
    """One sequence's next token, at the middle of the cache."""
    sizes = {"capacity": slots}
    shape = tuple(dim if isinstance(dim, int) else sizes.get(dim, 1) for dim in port.shape)
    if port.name == "write_index":
        return np.full(shape, slots // 2, np.int64)
    if port.name == "attention_mask":
        return np.broadcast_to(np.arange(slots) <= slots // 2, shape)
    if port.name == "inputs_embeds":
        return np.random.default_rng(0).normal(0, 0.02, shape).astype(port.dtype)
    return np.zeros(shape, port.dtype)


if __name__ == "__main__":
    typer.run(main)
