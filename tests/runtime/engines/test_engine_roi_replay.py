"""The forms of the replay in an engine: what each needs, what it records, and that all of them answer alike."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fakes.gpu import FakeGpu
from fakes.tensorrt import FakePlugins
from helpers.engine_building import build, gar_engine, keys

from gar_edge.runtime import Gar, GarBackendError, Options
from gar_edge.runtime.engines.names import ReplayForm
from gar_edge.runtime.engines.roi_replay_plugin import aot
from gar_edge.runtime.engines.tensorrt import roi_replay as replay
from gar_edge.runtime.engines.tensorrt.installed import load_library
from gar_edge.runtime.engines.tensorrt.roi_replay import Replay

AOT = Replay(ReplayForm.AOT)
OTHERS = ("encoder", "decoder")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """The C++ plugin, compiled."""
    path = tmp_path / "libgar_roi_replay.so"
    path.write_bytes(b"plugin")
    return path


@pytest.fixture
def ahead_of_time(fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> FakePlugins:
    """A TensorRT with ahead-of-time plugins, and a compiler for them."""
    plugins = FakePlugins(fake_gpu.tensorrt.registry)
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", plugins)
    monkeypatch.setattr(fake_gpu.tensorrt, "plugin", plugins, raising=False)
    monkeypatch.setattr(aot, "find_compiler", lambda: SimpleNamespace(ptx=lambda variant, architecture: b"ptx"))
    monkeypatch.setattr(aot, "current_architecture", lambda: 87)
    monkeypatch.setattr(aot, "load_module", lambda ptx: None)
    monkeypatch.setattr(aot, "unload_module", lambda module: None)
    return plugins


def another_process(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is registered any more."""
    gpu.tensorrt.registry.creators.clear()
    monkeypatch.delitem(sys.modules, "tensorrt.plugin", raising=False)


def answers(bundle: Path, backend: str) -> tuple[int, ...]:
    image, mask = np.zeros((90, 130, 3), np.uint8), np.ones((90, 130), bool)
    return Gar.load(bundle, backend=backend).open(image).describe(mask, options=Options(max_new_tokens=3)).tokens


def test_the_cpp_plugin_takes_the_place_of_the_body(
    own_nano: Path,
    fake_gpu: FakeGpu,
    library: Path,
) -> None:
    portable = keys(build(own_nano))
    with_plugin = build(own_nano, Replay(ReplayForm.PLUGIN, library))
    assert keys(with_plugin)["roi_replay"] != portable["roi_replay"]
    assert {name: keys(with_plugin)[name] for name in OTHERS} == {name: portable[name] for name in OTHERS}
    assert with_plugin[1].record.plugin_file == str(library)
    assert answers(own_nano, "tensorrt") == answers(own_nano, "onnxruntime")
    assert [engine.plan.plugin for engine in fake_gpu.tensorrt.engines] == [False, True, False]


def test_the_ahead_of_time_plugin_needs_nothing_when_it_runs(
    own_nano: Path,
    fake_gpu: FakeGpu,
    ahead_of_time: FakePlugins,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    portable = keys(build(own_nano))
    carried = build(own_nano, AOT)
    assert keys(carried)["roi_replay"] != portable["roi_replay"]
    assert {name: keys(carried)[name] for name in OTHERS} == {name: portable[name] for name in OTHERS}
    assert [engine.record.recipe.replay for engine in carried] == [None, "aot", None]
    assert carried[1].record.plugin_file is None
    assert [engine.built for engine in build(own_nano, AOT)] == [False] * 3  # registered once, found again
    another_process(fake_gpu, monkeypatch)
    assert answers(own_nano, "tensorrt") == answers(own_nano, "onnxruntime")
    assert [engine.plan.kernel for engine in fake_gpu.tensorrt.engines] == [False, True, False]


def test_another_kernel_is_another_engine(
    own_nano: Path,
    ahead_of_time: FakePlugins,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    first = keys(build(own_nano, AOT))
    sources = shutil.copytree(replay.SOURCES, tmp_path / "cuda")
    (sources / "roi_replay.h").write_text("// altered")
    monkeypatch.setattr(replay, "SOURCES", sources)
    assert keys(build(own_nano, AOT))["roi_replay"] != first["roi_replay"]


def test_an_engine_without_its_library_says_so(
    own_nano: Path,
    fake_gpu: FakeGpu,
    library: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build(own_nano, Replay(ReplayForm.PLUGIN, library))
    library.unlink()
    another_process(fake_gpu, monkeypatch)
    with pytest.raises(GarBackendError, match="no such plugin library"):
        Gar.load(own_nano, backend="tensorrt")


def test_a_library_without_the_plugin(
    own_nano: Path,
    fake_gpu: FakeGpu,
    library: Path,
) -> None:
    library.write_bytes(b"something else")
    with pytest.raises(GarBackendError, match="not a replay plugin"):
        build(own_nano, Replay(ReplayForm.PLUGIN, library))


def test_an_older_tensorrt_has_no_such_plugins(
    own_nano: Path,
    fake_gpu: FakeGpu,
) -> None:
    with pytest.raises(GarBackendError, match=r"install TensorRT 10\.9 or later, or load the C\+\+ plugin"):
        build(own_nano, AOT)


@pytest.mark.parametrize("form", ["plugin", "aot"])
def test_rtx_takes_no_plugins(own_nano: Path, fake_gpu: FakeGpu, library: Path, form: str, capsys) -> None:
    named = ("--plugin-library", library) if form == "plugin" else ()
    code, _, err = gar_engine(capsys, "build", own_nano, "--backend", "tensorrt_rtx", "--replay", form, *named)
    assert (code, err.count("\n")) == (1, 1)
    assert "TensorRT-RTX 1.7.1.116 takes no plugins; build the portable replay" in err


def test_one_form_in_a_process(
    own_nano: Path,
    fake_gpu: FakeGpu,
    ahead_of_time: FakePlugins,
    library: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build(own_nano, AOT)
    with pytest.raises(GarBackendError, match="the ahead-of-time replay plugin is registered in this process"):
        build(own_nano, Replay(ReplayForm.PLUGIN, library))
    with pytest.raises(GarBackendError, match="would take it instead of the portable replay"):
        build(own_nano)
    another_process(fake_gpu, monkeypatch)
    build(own_nano, Replay(ReplayForm.PLUGIN, library))
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", FakePlugins(fake_gpu.tensorrt.registry))
    with pytest.raises(GarBackendError, match="loaded in this process already"):
        build(own_nano, AOT)


def test_a_lookup_that_fails_is_not_a_builds_reason(
    own_nano: Path,
    fake_gpu: FakeGpu,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TensorRT logs an error for a plugin that it does not find."""
    found = load_library("tensorrt")
    monkeypatch.setattr(
        fake_gpu.tensorrt.registry, "get_creator", lambda *name: found.logger.errors.append("getCreator failed")
    )
    Replay().prepare(found)
    assert found.reason() == "it gave no reason"


def test_the_command_names_the_form(
    own_nano: Path,
    fake_gpu: FakeGpu,
    ahead_of_time: FakePlugins,
    library: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert gar_engine(capsys, "build", own_nano)[0] == 0
    assert gar_engine(capsys, "build", own_nano, "--replay", "aot")[0] == 0
    another_process(fake_gpu, monkeypatch)
    assert gar_engine(capsys, "build", own_nano, "--plugin-library", library)[0] == 0
    _, out, _ = gar_engine(capsys, "info", own_nano)
    for form in ReplayForm:
        assert f"roi_replay ({form.value}): " in out
    _, out, _ = gar_engine(capsys, "info", own_nano, "--json")
    listed = {engine["recipe"]["replay"]: engine["plugin_file"] for engine in json.loads(out)["engines"]}
    assert listed == {None: None, "portable": None, "aot": None, "plugin": str(library)}
