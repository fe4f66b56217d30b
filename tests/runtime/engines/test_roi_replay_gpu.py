"""The replay kernel on a CUDA GPU, where there is one, and its benchmark's logic, which needs none."""

import functools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.roi_replay_kernel import DTYPES, Case, random_case

from gar_edge.export.gpu_kernel import GpuKernel
from gar_edge.export.replay_benchmark import bytes_moved
from gar_edge.runtime.errors import GarBackendError

BENCHMARK = [sys.executable, "-m", "gar_edge.export.replay_benchmark"]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU, or a CPU build of torch")


compiled = functools.cache(GpuKernel)


def run(case: Case, dtype: torch.dtype, aligned: bool) -> torch.Tensor:
    kernel = compiled(dtype, case.side, case.scale)
    room = torch.empty(case.features.numel() + 1, dtype=dtype, device="cuda")
    features = room[0 if aligned else 1 :][: case.features.numel()].view(case.features.shape)
    features.copy_(case.features)
    return kernel(features, torch.tensor(case.grid, device="cuda"), case.boxes.cuda()).cpu()


@needs_gpu
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_the_kernel_over_500_random_cases(dtype: torch.dtype) -> None:
    random = np.random.default_rng(31)
    for index in range(500):
        case = random_case(random, scales=(1 / 28, 1.0, 0.37))
        found, expected = run(case, dtype, aligned=index % 4 != 0).float(), case.expected(dtype)
        if dtype == torch.float32:
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        else:
            bound = 2e-3 if dtype == torch.float16 else 4e-3
            assert torch.linalg.norm(found - expected) <= bound * torch.linalg.norm(expected)


@needs_gpu
def test_a_map_of_128_cells_stays_exact() -> None:
    random = np.random.default_rng(32)
    features = torch.from_numpy(random.standard_normal((1 + 8 * 2, 256, 8)).astype(np.float32))
    case = Case(features, (8, 2), torch.tensor([[0.81, 0.1, 0.97, 0.9], [0.5, 0.5, 0.52, 0.54]]), 1.0)
    torch.testing.assert_close(run(case, torch.float32, True), case.expected(), rtol=0, atol=1e-5)


@needs_gpu
def test_the_benchmark_reports_all_three() -> None:
    command = [*BENCHMARK, "--size", "nano", "--launches", "2", "--rounds", "2", "--json"]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert min(figures["kernel"], figures["unfused"], figures["copy"]) > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so() -> None:
    with pytest.raises(GarBackendError, match="No CUDA GPU"):
        GpuKernel(torch.float16, 4, 1.0)
    done = subprocess.run(BENCHMARK, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: No CUDA GPU")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["--regions", "0"], ["--size", "2b"], ["--precision", "int8"]])
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    done = subprocess.run([*BENCHMARK, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert arguments[0] in done.stderr


def test_bytes_are_each_touched_cell_once_and_the_output() -> None:
    """A 2x1 grid of 2x2 tokens: a map of 2x4 cells, 5 bytes a token."""
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    assert bytes_moved(whole, (2, 1), 2, 1.0, 5) == (8 + 4) * 5
    assert bytes_moved(whole.repeat(3, 1), (2, 1), 2, 1.0, 5) == (8 + 3 * 4) * 5
    one_cell = torch.tensor([[0.125, 0.25, 0.125, 0.25]])  # all samples at the centre of the first cell
    assert bytes_moved(one_cell, (2, 1), 2, 1.0, 5) == (1 + 4) * 5
    outside = torch.tensor([[3.0, 3.0, 4.0, 4.0]])
    assert bytes_moved(outside, (2, 1), 2, 1.0, 5) == 4 * 5
