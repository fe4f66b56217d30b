"""Integer products, held to NumPy's integers: on this processor, and on emulated ones whose kernels saturate."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.emulated import PROCESSORS, run_python
from onnx import TensorProto, helper, numpy_helper

from gar_edge.runtime import GarBackendError
from gar_edge.runtime.engines.onnxruntime import processor
from gar_edge.runtime.engines.onnxruntime.exact_products import EXACT, keep_exact, products_saturate
from gar_edge.runtime.engines.onnxruntime.processor import OnnxRuntimeBackend

DEPTH, COLUMNS = 192, 48
STEP, ZERO = np.float32(0.5), 128  # powers of two: the float arithmetic around the integers is exact
ROWS = (1, 7, 64)
KINDS = ("MatMul", "Gemm")  # the graphs' linears and their head

ANSWER = """\
import sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from gar_edge.runtime.engines.onnxruntime.processor import OnnxRuntimeBackend
folder = Path(sys.argv[1])
graphs = {kind: SimpleNamespace(files=(kind + ".onnx",)) for kind in ("MatMul", "Gemm")}
backend = OnnxRuntimeBackend(folder, SimpleNamespace(graphs=graphs), threads=1)
for kind in graphs:
    session = backend.session(kind)
    for given in sorted(folder.glob("x-*.npy")):
        x = np.load(given)
        y = backend.empty((len(x), int(sys.argv[2])), np.dtype(np.float32))
        session.bind({"x": x}, {"y": y})()
        np.save(folder / given.name.replace("x-", kind + "-"), y.read())
"""


def layer(kind: str, weights: np.ndarray) -> onnx.ModelProto:
    """One quantised linear as a bundle's CPU form has it: [K,N] int8 weights, or [N,K] for the head's Gemm."""
    axis = 1 if kind == "MatMul" else 0
    stored = weights if axis else np.ascontiguousarray(weights.T)
    constants = {
        "s": STEP, "z": np.uint8(ZERO), "q": stored, "t": np.full(COLUMNS, 0.25, np.float32),
        "n": np.zeros(COLUMNS, np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["q", "t"] + ["n"] * (axis == 0), ["w"], axis=axis),
        helper.make_node(kind, ["xd", "w"], ["y"], **({} if axis else {"transB": 1})),
    ]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])
        for name, size in (("x", DEPTH), ("y", COLUMNS))
    ]
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "layer", ports[:1], ports[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def deep(weights: Sequence[np.ndarray]) -> onnx.ModelProto:
    """A chain of quantised linears, each [K,N] int8."""
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in (("s", STEP), ("z", np.uint8(ZERO)))]
    nodes = []
    for index, one in enumerate(weights):
        y = "y" if index == len(weights) - 1 else f"x{index + 1}"
        held += [numpy_helper.from_array(np.full(one.shape[1], 0.25, np.float32), f"t{index}")]
        held += [numpy_helper.from_array(one, f"q{index}")]
        nodes += [
            helper.make_node("QuantizeLinear", [f"x{index}", "s", "z"], [f"xq{index}"]),
            helper.make_node("DequantizeLinear", [f"xq{index}", "s", "z"], [f"xd{index}"]),
            helper.make_node("DequantizeLinear", [f"q{index}", f"t{index}"], [f"w{index}"], axis=1),
            helper.make_node("MatMul", [f"xd{index}", f"w{index}"], [y]),
        ]
    sizes = {"x0": weights[0].shape[0], "y": weights[-1].shape[1]}
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size]) for name, size in sizes.items()]
    graph = helper.make_graph(nodes, "deep", ports[:1], ports[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.fixture
def layers(tmp_path: Path) -> dict[int, np.ndarray]:
    """Both layers and their inputs in `tmp_path`, and what comes out by rows: large weights, the largest among them."""
    random = np.random.default_rng(5)
    weights = random.choice(np.array([-127, -100, 90, 127], np.int8), (DEPTH, COLUMNS))
    weights[:, 0], weights[:, 1] = 127, -127
    for kind in KINDS:
        onnx.save(layer(kind, weights), str(tmp_path / f"{kind}.onnx"))
    wanted = {}
    for rows in ROWS:
        q = random.integers(0, 256, (rows, DEPTH))
        q[0] = 255
        np.save(tmp_path / f"x-{rows}.npy", ((q - ZERO) * STEP).astype(np.float32))
        wanted[rows] = ((q - ZERO) @ weights.astype(np.int64)).astype(np.float32) * STEP * np.float32(0.25)
    return wanted


def graphs() -> Any:
    return SimpleNamespace(graphs={kind: SimpleNamespace(files=(f"{kind}.onnx",)) for kind in KINDS})


def test_products_are_exact_here(layers: dict[int, np.ndarray], tmp_path: Path) -> None:
    backend = OnnxRuntimeBackend(tmp_path, graphs(), threads=1)
    for kind in KINDS:
        session = backend.session(kind)
        for rows, wanted in layers.items():
            y = backend.empty(wanted.shape, np.dtype(np.float32))
            session.bind({"x": np.load(tmp_path / f"x-{rows}.npy")}, {"y": y})()
            np.testing.assert_array_equal(y.read(), wanted)


@pytest.mark.parametrize("name", PROCESSORS)
def test_products_are_exact_on_processors_without_vnni(
    layers: dict[int, np.ndarray], tmp_path: Path, name: str
) -> None:
    run_python(name, ANSWER, str(tmp_path), str(COLUMNS))
    for kind in KINDS:
        for rows, wanted in layers.items():
            np.testing.assert_array_equal(np.load(tmp_path / f"{kind}-{rows}.npy"), wanted)


def test_an_emulated_haswell_saturates_where_nothing_is_done(layers: dict[int, np.ndarray], tmp_path: Path) -> None:
    """Otherwise the test above would show nothing."""
    idle = "import gar_edge.runtime.engines.onnxruntime.processor as p\np.keep_exact = lambda *_: None\n"
    run_python("Haswell", idle + ANSWER, str(tmp_path), str(COLUMNS))
    found = np.load(tmp_path / "MatMul-64.npy")
    assert np.linalg.norm(found - layers[64]) > 0.1 * np.linalg.norm(layers[64])


RESIDENT = """\
import sys
from pathlib import Path
from types import SimpleNamespace
import gar_edge.runtime.engines.onnxruntime.processor as p
p.products_saturate = lambda ort: sys.argv[2] == "True"
graphs = SimpleNamespace(graphs={"deep": SimpleNamespace(files=("deep.onnx",))})
session = p.OnnxRuntimeBackend(Path(sys.argv[1]), graphs, threads=1).session("deep")
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("RssAnon")))
"""


@pytest.mark.skipif(platform.system() != "Linux" or platform.libc_ver()[0] != "glibc", reason="needs Linux and glibc")
def test_shifted_weights_are_held_once(tmp_path: Path) -> None:
    """Resident memory after loading is the same in both forms; ONNX Runtime alone leaves all weights a second time."""
    random, sizes = np.random.default_rng(0), [1024, 1024, 4096] * 6 + [1024]
    weights = [random.integers(-127, 128, shape, np.int8) for shape in pairwise(sizes)]
    onnx.save(deep(weights), str(tmp_path / "deep.onnx"), save_as_external_data=True, location="deep.data")
    resident = {}
    for saturate in (False, True):
        command = [sys.executable, "-c", RESIDENT, str(tmp_path), str(saturate)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        resident[saturate] = int(done.stdout) << 10
    assert resident[True] - resident[False] < 0.2 * sum(one.nbytes for one in weights)


@pytest.mark.parametrize(("saturate", "entry"), [(True, "1"), (False, None)])
def test_only_kernels_that_saturate_are_avoided(
    saturate: bool, entry: str | None, layers: dict[int, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing saturates the other kernels would cost speed."""
    seen = []
    monkeypatch.setattr(processor, "products_saturate", lambda ort: saturate)
    monkeypatch.setattr(processor, "load_graph", lambda ort, path, options, providers: seen.append(options))
    OnnxRuntimeBackend(tmp_path, graphs()).session("MatMul")
    (options,) = seen
    if entry is None:
        with pytest.raises(Exception, match=EXACT):  # as ONNX Runtime says that an entry is missing
            options.get_session_config_entry(EXACT)
    else:
        assert options.get_session_config_entry(EXACT) == entry


def test_saturation_is_seen_in_what_is_computed() -> None:
    """One wrong element is enough, whatever the processor says of itself."""

    class Saturating:
        __version__ = "0"
        SessionOptions = onnxruntime.SessionOptions
        wrong = 0

        class InferenceSession:
            def __init__(self, *arguments: object, **rest: object) -> None:
                self._session = onnxruntime.InferenceSession(*arguments, **rest)

            def run(self, *arguments: object) -> list[np.ndarray]:
                (y,) = self._session.run(*arguments)
                y.flat[-1] -= Saturating.wrong
                return [y]

    options = onnxruntime.SessionOptions()
    keep_exact(options, True)  # exact on every processor
    Saturating.SessionOptions = lambda: options
    assert not products_saturate(Saturating)
    Saturating.wrong = 1
    assert products_saturate(Saturating)


def test_an_onnx_runtime_without_integer_products_is_an_error_of_one_line() -> None:
    class Refusing:
        __version__ = "9.9"
        SessionOptions = onnxruntime.SessionOptions

        def InferenceSession(self, *_: object, **__: object) -> None:  # noqa: N802
            raise RuntimeError("MatMulInteger(10) is not implemented\nat somewhere")

    with pytest.raises(GarBackendError, match=r"9\.9 cannot multiply integers") as error:
        products_saturate(Refusing())
    assert "\n" not in str(error.value)
