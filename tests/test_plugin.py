"""The TensorRT plugin where there is no TensorRT: its arithmetic as C++, its compilation, its interfaces."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import reference
import torch

from gar_edge.models.replay import replay

PLUGIN = Path(__file__).parents[1] / "export" / "plugin"
HERE = Path(__file__).parent / "plugin"
ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 110, 120)
TENSORRT = os.environ.get("TENSORRT_INCLUDE", "")

compiler = shutil.which("g++")
nvcc = shutil.which("nvcc")
needs_compiler = pytest.mark.skipif(compiler is None, reason="g++ is not installed")
needs_nvcc = pytest.mark.skipif(nvcc is None, reason="nvcc is not installed")
needs_tensorrt = pytest.mark.skipif(
    nvcc is None or compiler is None or not (Path(TENSORRT) / "NvInferRuntime.h").is_file(),
    reason="TENSORRT_INCLUDE does not point at TensorRT's headers, or nvcc or g++ is missing",
)


class Shape(ctypes.Structure):
    """`gar::ReplayShape`."""

    _fields_ = [(name, ctypes.c_int) for name in ("tiles", "side", "channels", "regions")] + [("scale", ctypes.c_float)]


def build(*arguments: str | Path) -> None:
    done = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The device function compiled for this processor."""
    if compiler is None:
        pytest.skip("g++ is not installed")
    library = tmp_path_factory.mktemp("plugin") / "libharness.so"
    flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    build(compiler, *flags, f"-I{PLUGIN}", HERE / "host_harness.cpp", "-o", library)
    return ctypes.CDLL(str(library))


def run(
    harness: ctypes.CDLL, features: np.ndarray, grid: tuple[int, int], boxes: np.ndarray, scale: float, wide: bool
) -> np.ndarray:
    tiles, tokens, channels = features.shape
    out = np.full((len(boxes), tokens, channels), np.nan, features.dtype)
    shape = Shape(tiles, round(tokens**0.5), channels, len(boxes), scale)
    call = harness.replay_float if features.dtype == np.float32 else harness.replay_half
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (features, boxes, out)]
    call(*pointers, ctypes.byref(shape), *grid, int(wide))
    return out


def random_case(random: np.random.Generator) -> tuple[np.ndarray, tuple[int, int], np.ndarray, float, bool]:
    """Any grid, side, channel count and scale; boxes inside, degenerate, inverted and out of range."""
    columns, rows = (int(x) for x in random.integers(1, 6, 2))
    side = int(random.integers(1, 9))
    wide = bool(random.random() < 0.5)
    channels = 8 * int(random.integers(1, 4)) if wide else int(random.integers(1, 20))
    features = random.standard_normal((1 + columns * rows, side * side, channels)).astype(np.float32)
    boxes = random.uniform(-0.3, 1.3, (6, 4)).astype(np.float32)
    boxes[0] = [0, 0, 1, 1]
    boxes[1, 2:] = boxes[1, :2]
    boxes[2] = random.uniform(2, 3, 4)
    boxes[3] = np.sort(random.random((2, 2)), axis=0).ravel()
    scale = float(random.choice([1 / 28, 1.0, random.uniform(0.01, 2)]))
    return features, (columns, rows), boxes, scale, wide


def test_fp32_arithmetic_over_500_random_cases(harness: ctypes.CDLL) -> None:
    random = np.random.default_rng(11)
    for _ in range(500):
        features, grid, boxes, scale, wide = random_case(random)
        found = run(harness, features, grid, boxes, scale, wide)
        expected = replay(torch.from_numpy(features), grid, torch.from_numpy(boxes), scale).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_fp32_arithmetic_is_onnx_runtimes_roi_align(harness: ctypes.CDLL) -> None:
    random = np.random.default_rng(12)
    for _ in range(60):
        features, grid, boxes, scale, wide = random_case(random)
        found = run(harness, features, grid, boxes, scale, wide)
        np.testing.assert_allclose(found, reference.roi_align(features, grid, boxes, scale), atol=2e-5)


def test_fp16_arithmetic_over_500_random_cases(harness: ctypes.CDLL) -> None:
    random = np.random.default_rng(13)
    for _ in range(500):
        features, grid, boxes, scale, wide = random_case(random)
        half = features.astype(np.float16)
        found = run(harness, half, grid, boxes, scale, wide).astype(np.float64)
        given = torch.from_numpy(half.astype(np.float32))
        expected = replay(given, grid, torch.from_numpy(boxes), scale).numpy().astype(np.float64)
        assert np.linalg.norm(found - expected) <= 2e-3 * np.linalg.norm(expected)


def test_a_map_of_128_cells_stays_exact_in_fp16(harness: ctypes.CDLL) -> None:
    """Where half-precision coordinates would be off by percents."""
    random = np.random.default_rng(14)
    features = random.standard_normal((1 + 8 * 2, 256, 8)).astype(np.float16)
    boxes = np.array([[0.81, 0.1, 0.97, 0.9], [0.5, 0.5, 0.52, 0.54]], np.float32)
    found = run(harness, features, (8, 2), boxes, 1.0, True).astype(np.float64)
    given = torch.from_numpy(features.astype(np.float32))
    expected = replay(given, (8, 2), torch.from_numpy(boxes), 1.0).numpy().astype(np.float64)
    assert np.linalg.norm(found - expected) <= 5e-4 * np.linalg.norm(expected)


def test_a_box_of_nan_gives_zeros(harness: ctypes.CDLL) -> None:
    features = np.ones((2, 4, 1), np.float32)
    boxes = np.array([[np.nan] * 4], np.float32)
    assert (run(harness, features, (1, 1), boxes, 1.0, False) == 0).all()


@needs_nvcc
def test_the_kernel_compiles_for_every_architecture(tmp_path: Path) -> None:
    assert nvcc is not None
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in ARCHITECTURES]
    strict = ["-std=c++17", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror"]
    build(nvcc, *strict, *codes, "--fatbin", PLUGIN / "roi_replay.cu", "-o", tmp_path / "roi_replay.fatbin")
    assert (tmp_path / "roi_replay.fatbin").stat().st_size > 0


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin, built by hand with CMakeLists.txt's flags: CMake would want to know this machine's GPU."""
    assert nvcc is not None
    folder = tmp_path_factory.mktemp("library")
    host = ["-std=c++17", "-isystem", TENSORRT, "-Xcompiler", "-fPIC,-fvisibility=hidden"]
    strict = ["-Xcompiler", "-Wall,-Wextra,-Werror"]
    build(nvcc, *host, *strict, "-c", PLUGIN / "plugin.cpp", "-o", folder / "plugin.o")
    build(nvcc, *host, *strict, "-arch=sm_87", "-c", PLUGIN / "roi_replay.cu", "-o", folder / "kernel.o")
    objects = [folder / "plugin.o", folder / "kernel.o"]
    build(nvcc, "-shared", "-cudart=static", *objects, "-o", folder / "libgar_roi_replay.so")
    return folder / "libgar_roi_replay.so"


@needs_tensorrt
def test_the_library_exports_two_functions_and_needs_no_libnvinfer(library: Path) -> None:
    symbols = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    assert {line.split()[-1] for line in symbols.splitlines()} >= {"getCreators", "setLoggerFinder"}
    assert "RoiReplayPlugin" not in symbols
    needed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    assert "nvinfer" not in needed


@needs_tensorrt
def test_tensorrts_walk_through_the_plugin(library: Path, tmp_path: Path) -> None:
    assert nvcc is not None
    build(nvcc, "-std=c++17", "-isystem", TENSORRT, HERE / "walk_plugin.cpp", "-ldl", "-o", tmp_path / "walk")
    done = subprocess.run([tmp_path / "walk", library], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "plugin walked\n", "")
