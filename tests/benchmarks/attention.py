"""One layer's attention in several forms, in ONNX Runtime on the processor, each in processes of its own, in turn.

    python tests/benchmarks/attention.py --rows 1 --slots 1856        # a decode step of the 1B
    python tests/benchmarks/attention.py --rows 256 --slots 1024      # a chunk of a prompt

Prints one JSON object: milliseconds of each form (the median of its processes' medians), how many times the graphs' own
form that is (the median over rounds), and its distance from NumPy's float64 as relative L2.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np
import onnx
import typer
from onnx import TensorProto, helper, numpy_helper

from gar_edge.runtime.bench.report import machine
from gar_edge.runtime.engines.telemetry import import_onnxruntime

HEADS, KEYS, WIDE = 32, 8, 64  # the 1B's: heads of queries, of keys and values, and their width
GROUP = HEADS // KEYS
HIDDEN = -1.7e38  # what the graphs add to a score that is not to be seen
LAYERS = 16  # each with a cache of its own, so that none is in the processor's caches when its turn comes
SECONDS = 1.5  # of runs in one process

Arrays = dict[str, np.ndarray]


class Work:
    """Random queries [heads,S,d], keys and values [keys,N,d]; the queries are the last S of N positions."""

    def __init__(self, rows: int, slots: int) -> None:
        random = np.random.default_rng(0)
        self.rows, self.slots = rows, slots
        self.q = random.standard_normal((1, HEADS, rows, WIDE)).astype(np.float32)
        self.k, self.v = random.standard_normal((2, 1, KEYS, slots, WIDE)).astype(np.float32)
        seen = np.arange(slots)[None] <= np.arange(slots - rows, slots)[:, None]
        self.bias = np.where(seen, 0, HIDDEN).astype(np.float32)[None, None]

    def grouped(self) -> Arrays:
        """As the graphs lay them out: the heads that share a key are rows of one."""
        q = self.q.reshape(1, KEYS, GROUP * self.rows, WIDE)
        return {"q": q, "k": self.k, "v": self.v, "bias": np.tile(self.bias, (1, 1, GROUP, 1))}

    def truth(self) -> np.ndarray:
        """[heads,S,d] in float64."""
        k, v = (np.repeat(one.astype(np.float64)[0], GROUP, axis=0) for one in (self.k, self.v))
        scores = self.q[0].astype(np.float64) @ k.transpose(0, 2, 1) / WIDE**0.5 + self.bias[0]
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True) @ v


def graph(nodes: list[onnx.NodeProto], feeds: Arrays, outputs: list[str], held: Arrays | None = None) -> bytes:
    ports = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feeds.items()
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    constants = [numpy_helper.from_array(value, name) for name, value in (held or {}).items()]
    made = helper.make_graph(nodes, "attention", ports, ends, constants)
    sets = [helper.make_opsetid("", 24), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=sets, ir_version=11).SerializeToString()


Form = Callable[[Work], tuple[bytes, Arrays]]


def own(work: Work) -> tuple[bytes, Arrays]:
    feeds = work.grouped()
    return graph([helper.make_node("Attention", [*feeds], ["y"])], feeds, ["y"]), feeds


def by_head(work: Work) -> tuple[bytes, Arrays]:
    """The operator groups heads by itself."""
    feeds = {"q": work.q, "k": work.k, "v": work.v, "bias": work.bias}
    return graph([helper.make_node("Attention", [*feeds], ["y"])], feeds, ["y"]), feeds


def keys_across(work: Work) -> tuple[bytes, Arrays]:
    """A cache of keys [d,N], two products and a softmax."""
    feeds = work.grouped()
    feeds["k"] = np.ascontiguousarray(feeds["k"].transpose(0, 1, 3, 2))
    nodes = [
        helper.make_node("Mul", ["q", "scale"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "k"], ["scores"]),
        helper.make_node("Add", ["scores", "bias"], ["seen"]),
        helper.make_node("Softmax", ["seen"], ["weights"]),
        helper.make_node("MatMul", ["weights", "v"], ["y"]),
    ]
    return graph(nodes, feeds, ["y"], {"scale": np.array(WIDE**-0.5, np.float32)}), feeds


def half_cache(work: Work) -> tuple[bytes, Arrays]:
    """Keys and values of float16, computed with as such."""
    feeds = {name: value.astype(np.float16) for name, value in work.grouped().items()}
    feeds["bias"] = np.maximum(work.grouped()["bias"], -60000).astype(np.float16)
    nodes = [
        helper.make_node("Attention", [*feeds], ["h"]),
        helper.make_node("Cast", ["h"], ["y"], to=TensorProto.FLOAT),
    ]
    return graph(nodes, feeds, ["y"]), feeds


def half_store(work: Work) -> tuple[bytes, Arrays]:
    """Keys and values of float16, computed with as float32."""
    feeds = work.grouped()
    feeds |= {name: feeds[name].astype(np.float16) for name in "kv"}
    nodes = [helper.make_node("Cast", [name], [name + "f"], to=TensorProto.FLOAT) for name in "kv"]
    nodes.append(helper.make_node("Attention", ["q", "kf", "vf", "bias"], ["y"]))
    return graph(nodes, feeds, ["y"]), feeds


def copied(work: Work) -> tuple[bytes, Arrays]:
    """Keys and values are copied before they are computed with: memory is read from end to end."""
    feeds = work.grouped()
    nodes = [helper.make_node("Concat", [name], [name + "f"], axis=2) for name in "kv"]
    nodes.append(helper.make_node("Attention", ["q", "kf", "vf", "bias"], ["y"]))
    return graph(nodes, feeds, ["y"]), feeds


def in_parts(work: Work, parts: int) -> tuple[bytes, Arrays]:
    """Rows in so many parts, each over the slots that its last row sees; those are copied, as `Slice` does."""
    size = work.rows // parts
    feeds: Arrays = {"k": work.k, "v": work.v}
    nodes, held = [], {"begin": np.array([0]), "axis": np.array([2])}
    for part in range(parts):
        end = work.slots - work.rows + (part + 1) * size
        rows = slice(part * size, (part + 1) * size)
        feeds[f"q{part}"] = np.ascontiguousarray(work.q[:, :, rows]).reshape(1, KEYS, GROUP * size, WIDE)
        feeds[f"bias{part}"] = np.tile(work.bias[:, :, rows, :end], (1, 1, GROUP, 1))
        held[f"end{part}"] = np.array([end])
        nodes += [helper.make_node("Slice", [name, "begin", f"end{part}", "axis"], [f"{name}{part}"]) for name in "kv"]
        nodes.append(helper.make_node("Attention", [f"{name}{part}" for name in ("q", "k", "v", "bias")], [f"y{part}"]))
    nodes.append(helper.make_node("Concat", [f"y{part}" for part in range(parts)], ["y"], axis=2))
    return graph(nodes, feeds, ["y"], held), feeds


def microsoft(work: Work) -> tuple[bytes, Arrays]:
    """ONNX Runtime's own GroupQueryAttention, as onnxruntime-genai uses it; it writes the cache in place as well."""
    flat = {"q": work.q, "nk": work.k[:, :, -work.rows :], "nv": work.v[:, :, -work.rows :]}
    feeds = {name: value.transpose(0, 2, 1, 3).reshape(1, work.rows, -1).copy() for name, value in flat.items()}
    feeds |= {"k": work.k.copy(), "v": work.v.copy()}
    feeds |= {"last": np.array([work.slots - 1], np.int32), "total": np.array(work.slots, np.int32)}
    sizes = {"num_heads": HEADS, "kv_num_heads": KEYS}
    inputs = ["q", "nk", "nv", "k", "v", "last", "total"]
    node = helper.make_node("GroupQueryAttention", inputs, ["y", "k_out", "v_out"], domain="com.microsoft", **sizes)
    return graph([node], feeds, ["y", "k_out", "v_out"]), feeds


FORMS: Mapping[str, Form] = {
    "Attention, grouped rows (the graphs')": own,
    "Attention, grouped by itself": by_head,
    "keys across, MatMul-Softmax-MatMul": keys_across,
    "float16 cache and arithmetic": half_cache,
    "float16 cache, float32 arithmetic": half_store,
    "float32 cache, copied": copied,
    "two parts": lambda work: in_parts(work, 2),
    "four parts": lambda work: in_parts(work, 4),
    "GroupQueryAttention": microsoft,
}


def timed(name: str, work: Work) -> dict[str, float]:
    """Milliseconds a layer and the distance from the truth; all cores, memory bound as the runtime binds it."""
    model, feeds = FORMS[name](work)
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # as the runtime has it
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    y = np.empty((1, *_shape(name, work)), np.float32)
    runs = [_bound(session, {name: value.copy() for name, value in feeds.items()}, y) for _ in range(LAYERS)]
    times = []
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until or len(times) < 3:
        begin = time.perf_counter()
        for run in runs:
            run()
        times.append((time.perf_counter() - begin) / LAYERS)
    truth = work.truth()
    return {"ms": statistics.median(times) * 1e3, "distance": _distance(name, y, truth, work)}


def _bound(session: Any, feeds: Arrays, y: np.ndarray) -> Callable[[], None]:
    """A run over memory of its own, caches written in place."""
    binding = session.io_binding()
    for port, value in feeds.items():
        binding.bind_input(port, "cpu", 0, value.dtype, value.shape, value.ctypes.data)
    for port in session.get_outputs():
        held = y if port.name == "y" else feeds[port.name.removesuffix("_out")]
        binding.bind_output(port.name, "cpu", 0, held.dtype, held.shape, held.ctypes.data)

    def run(alive: Arrays = feeds) -> None:
        session.run_with_iobinding(binding)

    return run


def _shape(name: str, work: Work) -> tuple[int, ...]:
    if FORMS[name] is microsoft:
        return work.rows, HEADS * WIDE
    return (HEADS, work.rows, WIDE) if FORMS[name] is by_head else (KEYS, GROUP * work.rows, WIDE)


def _distance(name: str, y: np.ndarray, truth: np.ndarray, work: Work) -> float:
    found = y[0]
    if FORMS[name] is microsoft:
        found = found.reshape(work.rows, HEADS, WIDE).transpose(1, 0, 2)
    elif name.endswith("parts"):
        parts = 2 if name.startswith("two") else 4
        found = found.reshape(KEYS, parts, GROUP, -1, WIDE).transpose(0, 2, 1, 3, 4)
    return float(np.linalg.norm(found.reshape(truth.shape) - truth) / np.linalg.norm(truth))


def main(
    rows: Annotated[int, typer.Option(min=1)] = 1,
    slots: Annotated[int, typer.Option(min=1)] = 1856,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    form: Annotated[str | None, typer.Option(help="Only this one, in this process.")] = None,
) -> None:
    """Time every form in turn."""
    if form is not None:
        print(json.dumps(timed(form, Work(rows, slots))))
        return
    names = [name for name in FORMS if rows % 4 == 0 or not name.endswith("parts")]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    why: dict[str, str] = {}  # a form is not there
    for _ in range(rounds):
        for name in names:
            command = [sys.executable, __file__, "--rows", str(rows), "--slots", str(slots), "--form", name]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                why[name] = (done.stderr.strip().splitlines() or ["?"])[-1][:200]
            else:
                found[name].append(json.loads(done.stdout))
    base = [one["ms"] for one in found[names[0]]]
    report = {
        name: {
            "ms": round(statistics.median(one["ms"] for one in ones), 3),
            "times": round(statistics.median(one["ms"] / own for one, own in zip(ones, base, strict=True)), 3),
            "distance": float(f"{ones[0]['distance']:.2g}"),
        }
        for name, ones in found.items()
        if name not in why
    }
    about = {"rows": rows, "slots": slots, "processor": machine()["processor"]}
    print(json.dumps(about | {"forms": report, "refused": why}))


if __name__ == "__main__":
    typer.run(main)
