"""The tile cutter's kernels without a GPU: as plain C++ against the host's tiles, and the PTX that comes with them."""

from __future__ import annotations

import hashlib
import re
from fractions import Fraction

import numpy as np
import pytest
from fakes.cuda_driver import ENTRIES
from helpers import needs
from helpers.tile_cutter import HostCutter, added_in_order
from numpy.typing import NDArray

from gar_edge.runtime.engines.cuda.cutter import ACROSS, DOWN, PTX, SOURCE
from gar_edge.runtime.images.preprocess import Tiles
from gar_edge.runtime.images.resize import Span, weights_of

SIZES = (  # of pictures: width, height
    (1, 1), (1, 200), (200, 1), (2, 3), (32, 32), (31, 33), (64, 32), (97, 61), (130, 90), (500, 20), (1200, 900),
)  # fmt: skip
TILE = 32


@pytest.fixture(scope="module")
def cutter(tmp_path_factory: pytest.TempPathFactory) -> HostCutter:
    return HostCutter(tmp_path_factory.mktemp("cutter"))


def noise(width: int, height: int) -> NDArray[np.uint8]:
    """A picture with every level at every place, where rounding and clipping matter most."""
    return np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("grid", [(0, 0), (1, 1), (3, 2)], ids=str)
def test_sums_are_those_of_their_order_bit_by_bit(
    cutter: HostCutter, size: tuple[int, int], grid: tuple[int, int]
) -> None:
    image = noise(*size)
    for across, down in Tiles(image, grid, TILE).windows:
        wide, tile = cutter(image, (across, down))
        low, weights = weights_of(down)
        top, bottom = int(low[0]), min(int(low[-1]) + len(weights), down.source)
        expected = added_in_order(image[top:bottom].transpose(2, 0, 1), across)
        np.testing.assert_array_equal(wide, expected)
        whole = added_in_order(image.transpose(2, 0, 1), across)
        sums = added_in_order(whole.transpose(0, 2, 1), down).transpose(0, 2, 1)
        np.testing.assert_array_equal(tile, np.clip(np.rint(sums), 0, 255).astype(np.uint8))


def test_a_sum_of_fractions_has_the_same_bits(cutter: HostCutter) -> None:
    """Of a few samples, by exact arithmetic and one rounding an addition."""
    image = noise(23, 1)
    span = Span(23, TILE, 0, TILE)
    wide, _ = cutter(image, (span, Span(1, TILE, 0, TILE)))
    low, weights = weights_of(span)
    for column in range(TILE):
        total = np.float32(0)
        for tap, weight in enumerate(weights[:, column]):
            if (at := int(low[column]) + tap) < 23:
                exact = Fraction(float(weight)) * int(image[0, at, 1]) + Fraction(float(total))
                total = _to_float32(exact)
        assert wide[1, 0, column] == total


def _to_float32(exact: Fraction) -> np.float32:
    """The nearest; of two that are as near the even one."""
    guess = np.float32(float(exact))
    near = [np.nextafter(guess, np.float32(side)) for side in (-np.inf, np.inf)] + [guess]
    return min(near, key=lambda one: (abs(Fraction(float(one)) - exact), int(one.view(np.uint32)) & 1))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tiles_are_the_hosts_within_one_level(cutter: HostCutter, size: tuple[int, int]) -> None:
    """Only where two sums straddle a half: the host's library adds in an order of its own."""
    image = noise(*size)
    tiles = Tiles(image, (2, 2), TILE)
    found = np.stack([cutter(image, window)[1] for window in tiles.windows])
    apart = np.abs(found.astype(int) - tiles.pixels)
    assert apart.max() <= 1
    assert np.count_nonzero(apart) <= found.size // 10_000


@pytest.mark.parametrize("block", [(1, 1), (7, 3), (32, 8), (64, 64)], ids=str)
def test_any_block_is_right(cutter: HostCutter, block: tuple[int, int]) -> None:
    image = noise(97, 61)
    window = Tiles(image, (2, 1), TILE).windows[2]
    np.testing.assert_array_equal(cutter(image, window, block)[1], cutter(image, window)[1])


def entries(ptx: str) -> dict[str, list[str]]:
    """Types of each entry's parameters in order."""
    found = re.findall(r"\.visible \.entry (\w+)\((.*?)\)", ptx, re.DOTALL)
    return {name: re.findall(r"\.param \.(\w+)", parameters) for name, parameters in found}


def declared() -> dict[str, list[str]]:
    """The same as the source has them."""
    found = re.findall(r"__global__ void (\w+)\((.*?)\)", SOURCE.read_text(encoding="utf-8"), re.DOTALL)
    return {
        name: ["u64" if "*" in one else "u32" for one in parameters.split(",")]
        for name, parameters in found
    }  # fmt: skip


def test_the_ptx_is_of_this_source() -> None:
    head = PTX.read_text(encoding="ascii").splitlines()[0]
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()
    assert head == f"// {SOURCE.name}, sha256 {digest}", "make tile-cutter writes it anew"


def test_the_ptx_has_both_entries_and_fused_sums() -> None:
    ptx = PTX.read_text(encoding="ascii")
    assert entries(ptx) == declared()
    assert entries(ptx).keys() == {ACROSS, DOWN} == ENTRIES.keys()
    assert {name: len(kinds) for name, kinds in entries(ptx).items()} == {
        name: len(names) for name, names in ENTRIES.items()
    }
    assert re.search(r"^\.version 8\.0$", ptx, re.MULTILINE), "drivers of CUDA 12.0 read it, and all newer ones"
    assert re.search(r"^\.target sm_70$", ptx, re.MULTILINE)
    assert "fma.rn.f32" in ptx
    assert not re.search(r"\b(?:mul|add)(?:\.rn)?\.(?:ftz\.)?f32|fma\.rn\.ftz|\.local|\.shared", ptx)


@pytest.mark.parametrize("architecture", [75, 87, 90, 110, 120])
def test_nvrtc_compiles_the_source_for_every_gpu(architecture: int) -> None:
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError):
        pytest.skip(needs.CUDA_COMPILER)
    _, program = nvrtc.nvrtcCreateProgram(SOURCE.read_bytes(), b"cut_tile.cu", 0, [], [])
    options = [f"--gpu-architecture=compute_{architecture}".encode(), b"-std=c++17"]
    assert nvrtc.nvrtcCompileProgram(program, 2, options)[0] == nvrtc.nvrtcResult.NVRTC_SUCCESS
    text = bytearray(nvrtc.nvrtcGetPTXSize(program)[1])
    nvrtc.nvrtcGetPTX(program, text)
    assert entries(text.decode()) == declared()
