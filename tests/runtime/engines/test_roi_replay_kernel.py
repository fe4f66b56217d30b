"""The replay kernel without a GPU: its arithmetic and launch as C++, and the PTX that it becomes."""

import contextlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import needs, reference
from helpers import roi_replay_kernel as replay_kernel
from helpers.roi_replay_kernel import DTYPES, Case, HostKernel, random_case

from gar_edge.runtime.engines.roi_replay_plugin.compiler import Compiler, Nvcc, Nvrtc, find_nvcc
from gar_edge.runtime.engines.roi_replay_plugin.kernel import ENTRY, Element, Variant, block_threads
from gar_edge.runtime.errors import GarBackendError

ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 110, 120)
RELEASED_SCALE = float(np.float32(1 / 28))


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> dict[Element, HostKernel]:
    folder = tmp_path_factory.mktemp("kernels")
    return {element: HostKernel(element, folder) for element in Element}


def test_fp32_over_500_random_cases(kernels: dict[Element, HostKernel]) -> None:
    random = np.random.default_rng(11)
    for index in range(500):
        case = random_case(random)
        found = kernels[Element.FLOAT32](case, aligned=index % 4 != 0)
        torch.testing.assert_close(found, case.expected(), rtol=0, atol=1e-5)


def test_fp32_is_onnx_runtimes_roi_align(kernels: dict[Element, HostKernel]) -> None:
    random = np.random.default_rng(12)
    for _ in range(60):
        case = random_case(random)
        expected = reference.roi_align(case.features.numpy(), case.grid, case.boxes.numpy(), case.scale)
        np.testing.assert_allclose(kernels[Element.FLOAT32](case).numpy(), expected, atol=2e-5)


@pytest.mark.parametrize(("element", "bound"), [(Element.FLOAT16, 2e-3), (Element.BFLOAT16, 4e-3)])
def test_half_precision_over_500_random_cases(
    kernels: dict[Element, HostKernel], element: Element, bound: float
) -> None:
    random = np.random.default_rng(13)
    for index in range(500):
        case = random_case(random)
        found = kernels[element](case, aligned=index % 4 != 0)
        expected = case.expected(DTYPES[element])
        assert torch.linalg.norm(found.float() - expected) <= bound * torch.linalg.norm(expected)


@pytest.mark.parametrize("element", [Element.FLOAT16, Element.BFLOAT16])
def test_half_precision_rounds_float32_sums_once(kernels: dict[Element, HostKernel], element: Element) -> None:
    random = np.random.default_rng(15)
    for _ in range(20):
        case = random_case(random)
        rounded = Case(case.features.to(DTYPES[element]).float(), case.grid, case.boxes, case.scale)
        assert torch.equal(kernels[element](case), kernels[Element.FLOAT32](rounded).to(DTYPES[element]))


@pytest.mark.parametrize("element", Element)
def test_conversion_is_torchs(kernels: dict[Element, HostKernel], element: Element) -> None:
    """Ties, subnormal numbers, overflow, infinities and NaN among them."""
    random = np.random.default_rng(16)
    every_upper_half = torch.arange(2**16, dtype=torch.int64) << 16
    bits = torch.cat([every_upper_half + low for low in (0, 1, 0x7FFF, 0x8000, 0x8001)])
    bits = torch.cat([bits, torch.from_numpy(random.integers(0, 2**32, 50_000))])
    values = (bits - (bits >> 31 << 32)).to(torch.int32).view(torch.float32)
    found, expected = kernels[element].convert(values), values.to(DTYPES[element])
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found[~found.isnan()], expected[~expected.isnan()])


def test_a_map_of_128_cells_stays_exact_in_fp16(kernels: dict[Element, HostKernel]) -> None:
    """Where half-precision coordinates would be off by percents."""
    random = np.random.default_rng(14)
    features = torch.from_numpy(random.standard_normal((1 + 8 * 2, 256, 8)).astype(np.float32))
    boxes = torch.tensor([[0.81, 0.1, 0.97, 0.9], [0.5, 0.5, 0.52, 0.54]])
    case = Case(features, (8, 2), boxes, 1.0)
    expected = case.expected(torch.float16)
    found = kernels[Element.FLOAT16](case).float()
    assert torch.linalg.norm(found - expected) <= 5e-4 * torch.linalg.norm(expected)


def test_a_box_of_nan_gives_zeros(kernels: dict[Element, HostKernel]) -> None:
    case = Case(torch.ones(2, 4, 1), (1, 1), torch.full((1, 4), torch.nan), 1.0)
    assert (kernels[Element.FLOAT32](case) == 0).all()


@pytest.mark.parametrize("grid", [(3, 2), (0, 4), (-1, -4), (2**32 + 1, 4), (2**62, 4), (4, 2)])
def test_a_grid_that_does_not_fit_gives_zeros(kernels: dict[Element, HostKernel], grid: tuple[int, int]) -> None:
    case = Case(torch.ones(5, 4, 24), grid, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), 1.0)
    for kernel in kernels.values():
        assert (kernel(case) == 0).all()


@pytest.mark.parametrize("threads", [1, 32, 1000])
def test_any_number_of_threads_is_right(kernels: dict[Element, HostKernel], threads: int) -> None:
    case = random_case(np.random.default_rng(17))
    tiles, tokens, channels = case.features.shape
    for kernel in kernels.values():
        shape = (len(case.boxes), tokens, channels)
        found = kernel.launch(case, shape, len(case.boxes) * tokens, threads, [tiles, channels])
        assert torch.equal(found, kernel(case))


@pytest.mark.parametrize("element", Element)
def test_both_forms_launch_as_many_threads(kernels: dict[Element, HostKernel], element: Element) -> None:
    for channels in (1, 7, 8, 9, 64, 100, 1023, 2048, 4096):
        assert kernels[element].compiled.block_threads(channels) == block_threads(channels, element)


def test_the_scale_is_compiled_in_to_the_last_bit(tmp_path: Path) -> None:
    defines = Variant(Element.FLOAT32, output_size=3, spatial_scale=RELEASED_SCALE).defines
    kernel = HostKernel(Element.FLOAT32, tmp_path, **defines)
    assert kernel.compiled.spatial_scale() == RELEASED_SCALE


def compilers() -> list[Compiler]:
    """Those that this machine has."""
    nvcc = find_nvcc()
    found: list[Compiler] = [] if nvcc is None else [Nvcc(nvcc)]
    with contextlib.suppress(GarBackendError):
        found.append(Nvrtc())
    return found


COMPILERS = compilers()
needs_a_cuda_compiler = pytest.mark.skipif(not COMPILERS, reason=needs.CUDA_COMPILER)


@needs_a_cuda_compiler
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ptx_takes_inputs_then_extras_then_the_output(architecture: int) -> None:
    """NVRTC where there is one, as it is faster; nvcc's own test is below."""
    for element in Element:
        ptx = COMPILERS[-1].ptx(Variant(element, 16, RELEASED_SCALE), architecture).decode()
        assert parameters(ptx) == ["u64", "u64", "u64", "u32", "u32", "u64"]
        assert re.search(rf"^\.target sm_{architecture}$", ptx, re.MULTILINE)


@needs_a_cuda_compiler
@pytest.mark.parametrize("compiler", COMPILERS, ids=lambda compiler: type(compiler).__name__)
@pytest.mark.parametrize("element", Element)
def test_ptx_loads_and_stores_16_bytes(compiler: Compiler, element: Element) -> None:
    ptx = compiler.ptx(Variant(element, 16, RELEASED_SCALE), 87).decode()
    assert parameters(ptx) == ["u64", "u64", "u64", "u32", "u32", "u64"]
    assert len(re.findall(r"ld\.global\.(?:nc\.)?v4\.[fub]32", ptx)) == 16  # one for each pair of taps
    assert len(re.findall(r"st\.global\.v4\.[fub]32", ptx)) == 1
    assert ".shared" not in ptx
    assert ".local" not in ptx
    assert not ptx.endswith("\0")


@needs_a_cuda_compiler
@pytest.mark.parametrize("compiler", COMPILERS, ids=lambda compiler: type(compiler).__name__)
def test_ptx_of_coordinates_cannot_be_contracted(compiler: Compiler) -> None:
    """A `mul.rn` stays one instruction; a bare `mul` would join the addition that follows."""
    ptx = compiler.ptx(Variant(Element.FLOAT32, 16, RELEASED_SCALE), 87).decode()
    assert len(re.findall(r"\bmul\.rn\.f32", ptx)) >= 8


@needs_a_cuda_compiler
@pytest.mark.parametrize("compiler", COMPILERS, ids=lambda compiler: type(compiler).__name__)
def test_an_unknown_architecture_is_refused_in_one_line(compiler: Compiler) -> None:
    with pytest.raises(GarBackendError, match=r"could not compile the replay kernel for sm_13: [^\n]*arch"):
        compiler.ptx(Variant(Element.FLOAT32, 16, RELEASED_SCALE), 13)


@pytest.mark.skipif(find_nvcc() is None, reason=needs.NVCC)
@pytest.mark.parametrize("element", Element)
def test_ptx_assembles_without_spilling(element: Element, tmp_path: Path) -> None:
    nvcc = find_nvcc()
    assert nvcc is not None
    (tmp_path / "kernel.ptx").write_bytes(Nvcc(nvcc).ptx(Variant(element, 16, RELEASED_SCALE), 87))
    replay_kernel.run_command(
        nvcc, "--cubin", "-arch=sm_87", tmp_path / "kernel.ptx", "-Xptxas", "--warn-on-spills,-Werror",
        "-o", tmp_path / "kernel.cubin",
    )  # fmt: skip
    assert ENTRY.encode() in (tmp_path / "kernel.cubin").read_bytes()


def parameters(ptx: str) -> list[str]:
    """Types of the entry's parameters in order, of the one entry there is."""
    (entry,) = re.findall(r"\.visible \.entry (\w+)\((.*?)\)", ptx, re.DOTALL)
    assert entry[0] == ENTRY
    return re.findall(r"\.param \.(\w+)", entry[1])
