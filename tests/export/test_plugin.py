"""The C++ plugin where there is no TensorRT: its compilation and its interfaces. Its kernel has tests of its own."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.needs import NVCC
from helpers.roi_replay_kernel import run_command as build

from gar_edge.runtime.engines.roi_replay_plugin.compiler import find_nvcc
from gar_edge.runtime.engines.roi_replay_plugin.kernel import SOURCES

PLUGIN = Path(__file__).parents[2] / "export" / "plugin"
HERE = Path(__file__).parent / "plugin"
ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 110, 120)
TENSORRT = os.environ.get("TENSORRT_INCLUDE", "")

# Of nvinfer1 and of its plugins' interfaces, what is in `include/` of github.com/NVIDIA/TensorRT at the tags v10.0.0,
# v10.3.0, v10.13.0, v10.15 and v11.1 alike; plugin.cpp compiles against each of them (GCC 12.2, 2026-11-28).
TYPES = """
    AsciiChar DataType DimsExprs DynamicPluginTensorDesc IExprBuilder ILogger ILoggerFinder IPluginCapability
    IPluginCreatorInterface IPluginCreatorV3One IPluginResourceContext IPluginV3 IPluginV3OneBuild IPluginV3OneCore
    IPluginV3OneRuntime PluginCapabilityType PluginField PluginFieldCollection PluginFieldType PluginTensorDesc
    TensorFormat TensorRTPhase
"""
OVERRIDES = """
    attachToContext clone configurePlugin createPlugin enqueue getCapabilityInterface getFieldNames getFieldsToSerialize
    getNbOutputs getOutputDataTypes getOutputShapes getPluginName getPluginNamespace getPluginVersion onShapeChange
    supportsFormatCombination
"""

compiler = shutil.which("g++")
nvcc = find_nvcc()
needs_nvcc = pytest.mark.skipif(nvcc is None, reason=NVCC)
needs_tensorrt = pytest.mark.skipif(
    nvcc is None or compiler is None or not (Path(TENSORRT) / "NvInferRuntime.h").is_file(),
    reason="TENSORRT_INCLUDE names no folder with TensorRT's headers (a device has them), or nvcc or g++ is missing",
)


def test_it_uses_what_every_tensorrt_from_10_0_to_11_has() -> None:
    """One more name must be looked up in the headers of JetPack 6's TensorRT before it is put into the tables."""
    source = re.sub(r"//.*", "", (PLUGIN / "plugin.cpp").read_text(encoding="utf-8"))
    assert set(re.findall(r"nvinfer1::(\w+)", source)) == set(TYPES.split())
    assert set(re.findall(r"(\w+)\([^()]*\)\s*(?:const\s*)?noexcept override", source)) == set(OVERRIDES.split())


@pytest.mark.skipif(not (Path(TENSORRT) / "NvInferRuntime.h").is_file(), reason="TENSORRT_INCLUDE names no headers")
def test_these_headers_have_all_of_it() -> None:
    headers = " ".join(file.read_text(encoding="utf-8") for file in Path(TENSORRT).glob("NvInfer*.h"))
    assert set(TYPES.split()) | set(OVERRIDES.split()) <= set(re.findall(r"\w+", headers))


@needs_nvcc
def test_the_kernel_compiles_for_every_architecture(tmp_path: Path) -> None:
    assert nvcc is not None
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in ARCHITECTURES]
    strict = ["-std=c++17", f"-I{SOURCES}", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror"]
    build(nvcc, *strict, *codes, "--fatbin", PLUGIN / "roi_replay.cu", "-o", tmp_path / "roi_replay.fatbin")
    assert (tmp_path / "roi_replay.fatbin").stat().st_size > 0


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin, built by hand with CMakeLists.txt's flags: CMake would want to know this machine's GPU."""
    assert nvcc is not None
    folder = tmp_path_factory.mktemp("library")
    host = ["-std=c++17", f"-I{SOURCES}", "-isystem", TENSORRT, "-Xcompiler", "-fPIC,-fvisibility=hidden"]
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
