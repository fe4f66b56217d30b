"""Pictures cut by the engine, on the fakes: taken once, never cut on the host, answered as on the processor."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes.cuda import FakeCuda, Violation
from fakes.cuda_driver import FakeDriver
from fakes.gpu import FakeGpu
from fakes.onnxruntime import FakeOnnxRuntime
from numpy.typing import NDArray

from gar_edge.runtime import Gar, GarBackendError, Options
from gar_edge.runtime.engines.cuda.api import Cuda
from gar_edge.runtime.engines.cuda.cutter import PTX, TileCutter
from gar_edge.runtime.engines.cuda.memory import DeviceBuffer, Stream
from gar_edge.runtime.images.preprocess import Tiles

OPTIONS = Options(max_new_tokens=4)
TILE = 32
UINT8 = np.dtype(np.uint8)


@pytest.fixture
def mask() -> NDArray[np.bool_]:
    marked = np.zeros((90, 130), np.bool_)
    marked[20:70, 30:90] = True
    return marked


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of every picture that a cutter took."""
    sizes: list[int] = []
    take = TileCutter.take

    def noted(cutter: TileCutter, image: NDArray[np.uint8]) -> DeviceBuffer:
        sizes.append(image.nbytes)
        return take(cutter, image)

    monkeypatch.setattr(TileCutter, "take", noted)
    return sizes


def test_a_picture_is_taken_once_and_cut_there(
    half_nano: Path,
    fake_provider: FakeOnnxRuntime,
    fake_gpu: FakeGpu,
    picture: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    taken: list[int],
) -> None:
    here = Gar.load(half_nano, backend="onnxruntime").open(picture)
    scene = Gar.load(half_nano, backend="cuda").open(picture)
    for region in (mask, ~mask):
        assert scene.describe(region, options=OPTIONS).tokens == here.describe(region, options=OPTIONS).tokens
    assert taken == [picture.nbytes]
    assert scene.tiles.nbytes == picture.nbytes, "nothing is cut on the host"
    assert here.tiles.nbytes == picture.nbytes + here.tiles.pixels.nbytes
    assert fake_gpu.driver.launches["gar_cut_across"] == fake_gpu.driver.launches["gar_cut_down"] >= len(scene.tiles)


def test_tensorrt_cuts_too(
    built_nano: Path, fake_gpu: FakeGpu, picture: NDArray[np.uint8], mask: NDArray[np.bool_], taken: list[int]
) -> None:
    scene = Gar.load(built_nano, backend="tensorrt").open(picture)
    assert scene.describe(mask, options=OPTIONS).reuse.tiles_encoded == len(scene.tiles)
    assert taken == [picture.nbytes]
    assert fake_gpu.driver.launches["gar_cut_down"] == len(scene.tiles)


def test_nothing_kept_is_still_one_upload_a_question(
    half_nano: Path,
    fake_provider: FakeOnnxRuntime,
    picture: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    taken: list[int],
) -> None:
    gar = Gar.load(half_nano, backend="cuda", cache_bytes=0)
    gar.pipeline.vision.at_once = 2  # so that the encoder runs several times
    scene = gar.open(picture)
    assert len(scene.tiles) > 2
    for question in (1, 2):
        scene.describe(mask, options=OPTIONS)
        assert taken == [picture.nbytes] * question


def test_a_picture_is_let_go_of_with_its_scene(
    half_nano: Path, fake_provider: FakeOnnxRuntime, picture: NDArray[np.uint8], mask: NDArray[np.bool_]
) -> None:
    gar = Gar.load(half_nano, backend="cuda")
    scene = gar.open(picture)
    scene.describe(mask, options=OPTIONS)
    assert gar.scheduler.kept.tile(scene.opened.taken) is not None
    key = scene.opened.taken
    del scene
    assert gar.scheduler.kept.bytes == 0
    assert gar.scheduler.kept.tile(key) is None


def test_frames_of_a_clip_are_cut_there_as_they_come(
    half_nano: Path,
    fake_provider: FakeOnnxRuntime,
    fake_gpu: FakeGpu,
    picture: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    taken: list[int],
) -> None:
    frames = [np.roll(picture, shift, axis=1) for shift in range(4)]
    found = {}
    for backend in ("cuda", "onnxruntime"):
        clip = Gar.load(half_nano, backend=backend).open_clip(frames[:3])
        first = clip.describe([mask] * 3, options=OPTIONS)
        second = clip.slide(frames[3:]).describe([mask] * 3, options=OPTIONS)
        found[backend] = [(answer.tokens, answer.reuse, answer.grid) for answer in (first, second)]
    assert found["cuda"] == found["onnxruntime"]
    assert taken == [picture.nbytes] * 4
    assert fake_gpu.driver.launches["gar_cut_down"] == 4


@pytest.mark.parametrize("missing", ["driver", "newer"])
def test_where_it_cannot_be_had_the_host_cuts(
    half_nano: Path,
    fake_provider: FakeOnnxRuntime,
    fake_gpu: FakeGpu,
    picture: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
) -> None:
    if missing == "driver":
        for name in ("cuda.bindings.driver", "cuda.cuda"):
            monkeypatch.setitem(sys.modules, name, None)
    else:
        fake_gpu.driver.newest = (7, 8)
    why = "no driver API" if missing == "driver" else "cuModuleLoadData failed: the provided PTX"
    with pytest.warns(UserWarning, match=f"^tiles are cut on the processor: .*{why}"):
        scene = Gar.load(half_nano, backend="cuda").open(picture)
    assert scene.tiles.nbytes == picture.nbytes + scene.tiles.pixels.nbytes
    expected = Gar.load(half_nano, backend="onnxruntime").open(picture).describe(mask, options=OPTIONS)
    assert scene.describe(mask, options=OPTIONS).tokens == expected.tokens


# On the stream


@pytest.fixture(params=[False, True], ids=["own memory", "shared memory"])
def fakes(request: pytest.FixtureRequest, fake_gpu: FakeGpu) -> FakeGpu:
    fake_gpu.cuda.integrated = request.param
    return fake_gpu


@pytest.fixture
def stream(fakes: FakeGpu) -> Stream:
    return Stream(Cuda(fakes.cuda, fakes.driver), "use less")


def cut(cutter: TileCutter, stream: Stream, image: NDArray[np.uint8], window: int) -> tuple[DeviceBuffer, np.ndarray]:
    """A tile that is queued, and what it must become."""
    tiles, tile = Tiles(image, (2, 1), TILE), DeviceBuffer.new(stream, (3, TILE, TILE), UINT8)
    cutter.cut(cutter.take(image), tiles.windows[window], tile)
    return tile, tiles.pixels[window]


def test_queued_cuts_do_not_see_the_next_picture(fakes: FakeGpu, stream: Stream, picture: NDArray[np.uint8]) -> None:
    """Pictures are let go of, and their memory written anew, before the device has done anything."""
    cutter = TileCutter(Cuda(fakes.cuda, fakes.driver), stream)
    queued = [cut(cutter, stream, np.roll(picture, shift, axis=0), shift) for shift in range(3)]
    for tile, expected in queued:
        np.testing.assert_array_equal(tile.read(), expected)


def test_where_memory_is_shared_no_picture_is_copied(
    fakes: FakeGpu, stream: Stream, picture: NDArray[np.uint8]
) -> None:
    cutter = TileCutter(Cuda(fakes.cuda, fakes.driver), stream)
    cut(cutter, stream, picture, 0)
    before = fakes.cuda.calls["copy"]
    for _ in range(3):  # weights are there
        cut(cutter, stream, picture, 0)
    assert fakes.cuda.calls["copy"] - before == (0 if fakes.cuda.integrated else 3)


def test_a_huge_picture_ends_in_one_line(fakes: FakeGpu, stream: Stream) -> None:
    cutter = TileCutter(Cuda(fakes.cuda, fakes.driver), stream)
    fakes.cuda.capacity = 1 << 20
    with pytest.raises(GarBackendError, match=r"out of GPU memory for a buffer of \d+ MiB; use less"):
        cut(cutter, stream, np.zeros((9000, 40, 3), np.uint8), 0)


# The fake's own rules


@pytest.fixture
def driver(fake_gpu: FakeGpu) -> FakeDriver:
    fake_gpu.cuda.cudaSetDevice(0)
    return fake_gpu.driver


def load(driver: FakeDriver) -> object:
    image = ctypes.create_string_buffer(PTX.read_bytes())
    return driver.cuModuleLoadData(ctypes.addressof(image))[1]


def test_a_thread_without_a_context_is_refused(driver: FakeDriver, cuda: FakeCuda) -> None:
    cuda.current.clear()
    with pytest.raises(Violation, match="no context"):
        load(driver)


PARAMETERS = ("picture", "first", "weights", "source", "target", "taps", "begin", "width", "top", "rows", "wide")


@pytest.mark.parametrize(
    ("blocks", "block", "change", "rule"),
    [
        ((1, 1), (2, 4), {}, "do not cover"),
        ((1, 1), (4, 2), {}, "do not cover"),
        ((1, 1 << 16), (4, 4), {}, "no GPU launches"),
        ((1, 1), (64, 32), {}, "no GPU launches"),
        ((1, 1), (4, 4), {"top": 1}, "do not fit"),
        ((1, 1), (4, 4), {"target": 5}, "do not fit"),
        ((1, 1), (4, 4), {"wide": 0}, "not device memory"),
    ],
    ids=str,
)
def test_a_launch_that_breaks_a_rule(
    driver: FakeDriver,
    cuda: FakeCuda,
    blocks: tuple[int, int],
    block: tuple[int, int],
    change: dict[str, int],
    rule: str,
) -> None:
    """A picture of 4 rows and columns as it is."""
    function = driver.cuModuleGetFunction(load(driver), b"gar_cut_across")[1]
    sizes = {"picture": 48, "first": 16, "weights": 16, "wide": 192}
    at = {name: cuda.cudaMalloc(size)[1] for name, size in sizes.items()}
    given = {**at, "source": 4, "target": 4, "taps": 1, "begin": 0, "width": 4, "top": 0, "rows": 4}
    stream = int(cuda.cudaStreamCreateWithFlags(1)[1])
    kinds = tuple(ctypes.c_void_p if name in at else ctypes.c_int for name in PARAMETERS)

    def launch(values: dict[str, int], kinds: tuple[type, ...]) -> None:
        arguments = tuple(values[name] for name in PARAMETERS), kinds
        driver.cuLaunchKernel(function, *blocks, 1, *block, 1, 0, stream, arguments, 0)

    with pytest.raises(Violation, match=rule):
        launch(given | change, kinds)
    with pytest.raises(Violation, match="gar_cut_across takes"):
        launch(given, kinds[::-1])
