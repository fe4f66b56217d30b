"""A bundle's engines: built once, looked up, refused, replaced."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.gpu import FakeGpu
from helpers.engine_building import PORTABLE, build, change_device, change_version, keys

from gar_edge.runtime import Gar, GarBackendError
from gar_edge.runtime.bundle.bundle import Bundle
from gar_edge.runtime.bundle.manifest import FileEntry
from gar_edge.runtime.engines.build_progress import BuildStep
from gar_edge.runtime.engines.cuda.api import Cuda
from gar_edge.runtime.engines.tensorrt.engines import build_engines, find_engines, here
from gar_edge.runtime.engines.tensorrt.installed import load_library
from gar_edge.runtime.engines.tensorrt.plan import Limits

KILLED_BUILD = Path(__file__).parents[2] / "helpers" / "killed_build.py"


def test_engines_are_built_once_and_again_on_request(own_nano: Path, fake_gpu: FakeGpu) -> None:
    first = build(own_nano)
    assert [engine.built for engine in first] == [True] * 3
    assert [engine.built for engine in build(own_nano)] == [False] * 3
    assert [engine.built for engine in build(own_nano, rebuild=True)] == [True] * 3
    assert keys(build(own_nano)) == keys(first)


def test_other_sizes_are_other_engines(own_nano: Path, fake_gpu: FakeGpu) -> None:
    first, smaller = keys(build(own_nano)), keys(build(own_nano, capacity=300, tiles=2))
    assert first["encoder"] == smaller["encoder"]
    assert first["roi_replay"] != smaller["roi_replay"]
    assert first["decoder"] != smaller["decoder"]
    gar = Gar.load(own_nano, backend="tensorrt")
    assert (gar.pipeline.decoder.longest, gar.pipeline.vision.most_tiles) == (320, 2)  # the newest that fit


def test_the_workspace_is_half_of_what_is_free(
    own_nano: Path, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(own_nano)
    assert {config.limits["workspace"] for config in fake_gpu.tensorrt.configs} == {fake_gpu.cuda.capacity // 2}
    fake_gpu.cuda.integrated = True
    monkeypatch.setattr("gar_edge.runtime.engines.cuda.api.available_memory", lambda: 6 << 30)
    build(own_nano, rebuild=True)
    assert fake_gpu.tensorrt.configs[-1].limits["workspace"] == 3 << 30


def test_timings_are_kept_per_version_and_device(own_nano: Path, fake_gpu: FakeGpu) -> None:
    build(own_nano)
    (cache,) = (own_nano / "engines").glob("timing-*.cache")
    assert "10.15.1.29-Orin-8.7" in cache.name
    assert cache.read_bytes() == b"timings"
    build(own_nano, rebuild=True)
    assert fake_gpu.tensorrt.configs[-1].timings is not None
    assert fake_gpu.tensorrt.configs[-1].timings.content == b"timings"
    cache.write_bytes(b"of another device")
    build(own_nano, rebuild=True)
    assert cache.read_bytes() == b"timings"


def test_stopping_a_build_leaves_the_engines_before_it(own_nano: Path, fake_gpu: FakeGpu) -> None:
    bundle, library, cuda = Bundle.open(own_nano), load_library("tensorrt"), Cuda.load()

    def stop(step: BuildStep) -> None:
        if step.graph == "decoder":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engines(bundle, library, here(library, cuda), Limits.of(bundle.manifest), PORTABLE, False, cuda, stop)
    left = {path.name.split("-")[0] for path in (own_nano / "engines").glob("*.engine")}
    assert left == {"encoder", "roi_replay"}
    assert not list((own_nano / "engines").glob(".*"))


@pytest.mark.parametrize("when", ["building", "writing"])
def test_a_killed_build_leaves_nothing_torn_and_is_resumed(own_nano: Path, fake_gpu: FakeGpu, when: str) -> None:
    """SIGKILL at the decoder: what was built before it is there, with its timings; what was half written is swept."""
    done = subprocess.run([sys.executable, KILLED_BUILD, own_nano, when], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder = own_nano / "engines"
    torn = list(folder.glob(".*"))
    assert len(torn) == (when == "writing")
    for path in torn:
        os.utime(path, (0, 0))  # an hour later
    assert {path.name.split("-")[0] for path in folder.glob("*.engine")} == {"encoder", "roi_replay"}
    assert [engine.built for engine in build(own_nano)] == [False, False, True]
    (config,) = fake_gpu.tensorrt.configs
    assert config.timings is not None
    assert config.timings.content == b"timings"
    assert list(folder.glob(".*")) == []


def test_a_stopped_build_keeps_the_timings_of_its_kernels(own_nano: Path, fake_gpu: FakeGpu) -> None:
    """Which the next one begins with; a build that TensorRT refuses as well."""
    bundle, library, cuda = Bundle.open(own_nano), load_library("tensorrt"), Cuda.load()

    def stop(step: BuildStep) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engines(bundle, library, here(library, cuda), Limits.of(bundle.manifest), PORTABLE, False, cuda, stop)
    (cache,) = (own_nano / "engines").iterdir()
    assert cache.read_bytes() == b"timings"
    cache.unlink()
    fake_gpu.tensorrt.build_error = "no tactic"
    with pytest.raises(GarBackendError, match="no tactic"):
        build(own_nano)
    assert cache.read_bytes() == b"timings"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_version, r"built by version 10\.15\.1\.29, here is 10\.16\.0\.1"),
        (change_device, r"built for Orin of compute capability 8\.7, here is RTX 4090 of compute capability 8\.9"),
    ],
)
def test_engines_of_elsewhere_are_refused_by_name_and_replaced_by_auto(
    own_nano: Path, fake_gpu: FakeGpu, change: Callable[[FakeGpu], None], reason: str
) -> None:
    before = {engine.file for engine in build(own_nano)}
    change(fake_gpu)
    with pytest.raises(GarBackendError, match=reason + rf"; gar-engine build {own_nano} --backend tensorrt makes one"):
        Gar.load(own_nano, backend="tensorrt")
    gar = Gar.load(own_nano)
    assert gar.pipeline.backend.name == "tensorrt"
    after = set((own_nano / "engines").glob("*.engine"))
    assert before < after
    assert len(after) == 6


def test_an_engine_that_was_altered_is_one_line(own_nano: Path, fake_gpu: FakeGpu) -> None:
    engine = build(own_nano)[2]
    engine.file.write_bytes(b"x" * engine.record.bytes)
    with pytest.raises(GarBackendError, match=r"cannot load the engine \(Magic tag.*--rebuild"):
        Gar.load(own_nano, backend="tensorrt")


def test_engines_of_another_export_are_not_used(own_nano: Path, fake_gpu: FakeGpu) -> None:
    build(own_nano)
    bundle, library = Bundle.open(own_nano), load_library("tensorrt")
    files = {name: FileEntry(entry.bytes, "0" * 64) for name, entry in bundle.manifest.files.items()}
    other = Bundle(own_nano, dataclasses.replace(bundle.manifest, files=files))
    with pytest.raises(GarBackendError, match="built from other graphs than this bundle's"):
        find_engines(other, library, here(library, Cuda.load()))


def test_a_missing_engine_among_others_is_named(own_nano: Path, fake_gpu: FakeGpu) -> None:
    build(own_nano)[1].file.unlink()
    with pytest.raises(GarBackendError, match="no roi_replay engine for this machine: there is none"):
        Gar.load(own_nano, backend="tensorrt")


def test_float32_bundles_are_refused_with_the_remedy(tiny_bundle: Path, fake_gpu: FakeGpu) -> None:
    with pytest.raises(GarBackendError, match=r"the bundle is fp32 .*gar-export --fp16"):
        Gar.load(tiny_bundle, backend="tensorrt")


def test_an_old_tensorrt_without_compat_graphs(own_nano: Path, fake_gpu: FakeGpu) -> None:
    fake_gpu.tensorrt.__version__ = "10.3.0"
    with pytest.raises(GarBackendError, match=r"needs TensorRT 10\.15 or newer, here is TensorRT 10\.3\.0"):
        Gar.load(own_nano, backend="tensorrt")


def test_tensorrts_reason_reaches_the_user(own_nano: Path, fake_gpu: FakeGpu) -> None:
    fake_gpu.tensorrt.build_error = "no tactic\nfits  in memory"
    with pytest.raises(GarBackendError, match=r"cannot build the engine \(no tactic fits in memory\)"):
        Gar.load(own_nano, backend="tensorrt")
