"""Engines on disk: what makes two of them different, which one is taken, what is refused, what is left behind."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FakeGpu
from fake_tensorrt import FakeTensorRt

from gar_edge.runtime import Gar, GarBackendError, Options
from gar_edge.runtime.bundle import Bundle, read_manifest
from gar_edge.runtime.manifest import FileEntry
from gar_edge.runtime.tensorrt import cli
from gar_edge.runtime.tensorrt.cuda import Cuda, Device
from gar_edge.runtime.tensorrt.engines import GRAPHS, Engine, build_engines, find_engines, here
from gar_edge.runtime.tensorrt.installed import load_library
from gar_edge.runtime.tensorrt.plan import Limits, Plan, Profile
from gar_edge.runtime.tensorrt.progress import BuildStep
from gar_edge.runtime.tensorrt.store import Machine, Recipe, Record, Store, misfit


@pytest.fixture
def folder(half_nano: Path, tmp_path: Path) -> Path:
    """A bundle without engines."""
    return shutil.copytree(half_nano, tmp_path / "nano", ignore=shutil.ignore_patterns("engines"))


def build(folder: Path, plugin: Path | None = None, rebuild: bool = False, **limits: int) -> list[Engine]:
    bundle, library, cuda = Bundle.open(folder), load_library("tensorrt"), Cuda.load()
    sizes = Limits.of(bundle.manifest, **limits)
    return build_engines(bundle, library, here(library, cuda), sizes, plugin, rebuild, cuda, lambda _: None)


def keys(engines: list[Engine]) -> dict[str, str]:
    return {engine.record.recipe.graph: engine.record.recipe.key() for engine in engines}


RECIPE = Recipe(
    "decoder", {"decoder.onnx": "aa", "decoder.onnx.data": "bb"}, "tensorrt", "10.15.1", Device("8.7", "Orin"),
    Plan({"batch": 1, "capacity": 704}, (Profile({"length": (1, 512, 512)}), Profile({"length": (1, 1, 1)}))),
)  # fmt: skip
CHANGES: dict[str, dict[str, Any]] = {
    "graph": {"graph": "encoder"},
    "the graph's file": {"files": {**RECIPE.files, "decoder.onnx": "ab"}},
    "the weights": {"files": {**RECIPE.files, "decoder.onnx.data": "ab"}},
    "engine": {"engine": "tensorrt_rtx"},
    "version": {"version": "10.15.2"},
    "GPU": {"device": Device("8.7", "Orin Nano")},
    "compute capability": {"device": Device("8.9", "Orin")},
    "capacity": {"plan": Plan({"batch": 1, "capacity": 768}, RECIPE.plan.profiles)},
    "profiles": {"plan": Plan(RECIPE.plan.fixed, RECIPE.plan.profiles[:1])},
    "plugin": {"plugin": "cc"},
}


@pytest.mark.parametrize("what", sorted(CHANGES))
def test_the_key_changes_with(what: str) -> None:
    assert dataclasses.replace(RECIPE, **CHANGES[what]).key() != RECIPE.key()


def test_the_key_is_of_the_content_not_its_order() -> None:
    turned = dataclasses.replace(RECIPE, files=dict(reversed(list(RECIPE.files.items()))))
    assert turned.key() == RECIPE.key() == dataclasses.replace(RECIPE).key()


def test_records_survive_the_disk(tmp_path: Path) -> None:
    store, record = Store(tmp_path), Record(RECIPE, 4, 1.5, "gar-edge 0", "/plugin.so")
    store.put(record, b"1234")
    assert store.get(RECIPE) == record
    assert store.records() == [record]
    assert store.engine_file(RECIPE).read_bytes() == b"1234"
    assert store.get(dataclasses.replace(RECIPE, version="11")) is None


def cut_engine(store: Store) -> None:
    store.engine_file(RECIPE).write_bytes(b"12")


def cut_record(store: Store) -> None:
    file = store.engine_file(RECIPE).with_suffix(".json")
    file.write_text(file.read_text()[:-20])


def foreign_record(store: Store) -> None:
    store.engine_file(RECIPE).with_suffix(".json").write_text('{"recipe": 5}')


def no_engine(store: Store) -> None:
    store.engine_file(RECIPE).unlink()


@pytest.mark.parametrize("damage", [cut_engine, cut_record, foreign_record, no_engine])
def test_what_is_not_whole_is_not_there(tmp_path: Path, damage: Callable[[Store], None]) -> None:
    store = Store(tmp_path)
    store.put(Record(RECIPE, 4, 1.5, "gar-edge 0"), b"1234")
    damage(store)
    assert store.get(RECIPE) is None
    assert store.records() == []


@pytest.mark.parametrize("fails_at", ["write", "rename"])
def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if fails_at == "rename":
        monkeypatch.setattr(Path, "replace", interrupt)
    content = b"1234" if fails_at == "rename" else object()  # the latter is no bytes
    with pytest.raises((KeyboardInterrupt, TypeError)):
        Store(tmp_path).put(Record(RECIPE, 4, 1.5, "gar-edge 0"), content)
    assert list((tmp_path / "engines").iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(GarBackendError, match="engines cannot be written"):
        Store(tmp_path).put(Record(RECIPE, 4, 1.5, "gar-edge 0"), b"1234")


def test_a_file_in_the_folders_place_is_one_line(folder: Path, fake_gpu: FakeGpu) -> None:
    (folder / "engines").write_text("not a folder")
    with pytest.raises(GarBackendError, match="engines cannot be written"):
        build(folder)


def test_misfits_are_named(half_nano: Path) -> None:
    manifest = read_manifest(half_nano)
    files = {name: manifest.files[name].sha256 for name in manifest.graphs["decoder"].files}
    recipe = dataclasses.replace(RECIPE, files=files)
    machine = Machine("tensorrt", "10.15.1", Device("8.7", "Orin"))

    def why(recipe: Recipe) -> str | None:
        return misfit(Record(recipe, 1, 1.0, ""), manifest, machine)

    assert why(recipe) is None
    assert why(dataclasses.replace(recipe, engine="tensorrt_rtx")) == "built for tensorrt_rtx, not tensorrt"
    assert why(dataclasses.replace(recipe, version="10.3.0")) == "built by version 10.3.0, here is 10.15.1"
    other = why(dataclasses.replace(recipe, device=Device("8.9", "RTX 4090")))
    assert other == "built for RTX 4090 of compute capability 8.9, here is Orin of compute capability 8.7"
    assert why(RECIPE) == "built from other graphs than this bundle's"


def test_engines_are_built_once_and_again_on_request(folder: Path, fake_gpu: FakeGpu) -> None:
    first = build(folder)
    assert [engine.built for engine in first] == [True] * 3
    assert [engine.built for engine in build(folder)] == [False] * 3
    assert [engine.built for engine in build(folder, rebuild=True)] == [True] * 3
    assert keys(build(folder)) == keys(first)


def test_other_sizes_are_other_engines(folder: Path, fake_gpu: FakeGpu) -> None:
    first, smaller = keys(build(folder)), keys(build(folder, capacity=300, tiles=2))
    assert first["encoder"] == smaller["encoder"]
    assert first["roi_replay"] != smaller["roi_replay"]
    assert first["decoder"] != smaller["decoder"]
    gar = Gar.load(folder, backend="tensorrt")
    assert (gar.decoder.longest, gar.vision.most_tiles) == (320, 2)  # the newest that fit


def test_the_workspace_is_half_of_what_is_free(
    folder: Path, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(folder)
    assert {config.limits["workspace"] for config in fake_gpu.tensorrt.configs} == {fake_gpu.cuda.capacity // 2}
    fake_gpu.cuda.integrated = True
    monkeypatch.setattr("gar_edge.runtime.tensorrt.cuda._available_memory", lambda: 6 << 30)
    build(folder, rebuild=True)
    assert fake_gpu.tensorrt.configs[-1].limits["workspace"] == 3 << 30


def test_timings_are_kept_per_version_and_device(folder: Path, fake_gpu: FakeGpu) -> None:
    build(folder)
    (cache,) = (folder / "engines").glob("timing-*.cache")
    assert "10.15.1.29-Orin-8.7" in cache.name
    assert cache.read_bytes() == b"timings"
    build(folder, rebuild=True)
    assert fake_gpu.tensorrt.configs[-1].timings is not None
    assert fake_gpu.tensorrt.configs[-1].timings.content == b"timings"
    cache.write_bytes(b"of another device")
    build(folder, rebuild=True)
    assert cache.read_bytes() == b"timings"


def test_stopping_a_build_leaves_the_engines_before_it(folder: Path, fake_gpu: FakeGpu) -> None:
    bundle, library, cuda = Bundle.open(folder), load_library("tensorrt"), Cuda.load()

    def stop(step: BuildStep) -> None:
        if step.graph == "decoder":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engines(bundle, library, here(library, cuda), Limits.of(bundle.manifest), None, False, cuda, stop)
    left = {path.name.split("-")[0] for path in (folder / "engines").glob("*.engine")}
    assert left == {"encoder", "roi_replay"}
    assert not list((folder / "engines").glob(".*"))


def change_version(gpu: FakeGpu) -> None:
    gpu.tensorrt.__version__ = "10.16.0.1"


def change_device(gpu: FakeGpu) -> None:
    gpu.cuda.device_name, gpu.cuda.capability = "RTX 4090", (8, 9)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_version, r"built by version 10\.15\.1\.29, here is 10\.16\.0\.1"),
        (change_device, r"built for Orin of compute capability 8\.7, here is RTX 4090 of compute capability 8\.9"),
    ],
)
def test_engines_of_elsewhere_are_refused_by_name_and_replaced_by_auto(
    folder: Path, fake_gpu: FakeGpu, change: Callable[[FakeGpu], None], reason: str
) -> None:
    before = {engine.file for engine in build(folder)}
    change(fake_gpu)
    with pytest.raises(GarBackendError, match=reason + rf"; gar-engine build {folder} --backend tensorrt makes one"):
        Gar.load(folder, backend="tensorrt")
    gar = Gar.load(folder)
    assert gar.backend.name == "tensorrt"
    after = set((folder / "engines").glob("*.engine"))
    assert before < after
    assert len(after) == 6


def test_an_engine_that_was_altered_is_one_line(folder: Path, fake_gpu: FakeGpu) -> None:
    engine = build(folder)[2]
    engine.file.write_bytes(b"x" * engine.record.bytes)
    with pytest.raises(GarBackendError, match=r"cannot load the engine \(Magic tag.*--rebuild"):
        Gar.load(folder, backend="tensorrt")


def test_engines_of_another_export_are_not_used(folder: Path, fake_gpu: FakeGpu) -> None:
    build(folder)
    bundle, library = Bundle.open(folder), load_library("tensorrt")
    files = {name: FileEntry(entry.bytes, "0" * 64) for name, entry in bundle.manifest.files.items()}
    other = Bundle(folder, dataclasses.replace(bundle.manifest, files=files))
    with pytest.raises(GarBackendError, match="built from other graphs than this bundle's"):
        find_engines(other, library, here(library, Cuda.load()))


def test_a_missing_engine_among_others_is_named(folder: Path, fake_gpu: FakeGpu) -> None:
    build(folder)[1].file.unlink()
    with pytest.raises(GarBackendError, match="no roi_replay engine for this machine: there is none"):
        Gar.load(folder, backend="tensorrt")


def test_float32_bundles_are_refused_with_the_remedy(tiny_bundle: Path, fake_gpu: FakeGpu) -> None:
    with pytest.raises(GarBackendError, match=r"the bundle is fp32 .*gar-export --fp16"):
        Gar.load(tiny_bundle, backend="tensorrt")


def test_an_old_tensorrt_without_compat_graphs(folder: Path, fake_gpu: FakeGpu) -> None:
    fake_gpu.tensorrt.__version__ = "10.3.0"
    with pytest.raises(GarBackendError, match=r"needs TensorRT 10\.15 or newer, here is TensorRT 10\.3\.0"):
        Gar.load(folder, backend="tensorrt")


def test_tensorrts_reason_reaches_the_user(folder: Path, fake_gpu: FakeGpu) -> None:
    fake_gpu.tensorrt.build_error = "no tactic\nfits  in memory"
    with pytest.raises(GarBackendError, match=r"cannot build the engine \(no tactic fits in memory\)"):
        Gar.load(folder, backend="tensorrt")


# The plugin


def test_a_plugin_takes_the_place_of_the_portable_body(folder: Path, fake_gpu: FakeGpu, tmp_path: Path) -> None:
    library = tmp_path / "libgar_roi_replay.so"
    library.write_bytes(b"plugin")
    portable = keys(build(folder))
    with_plugin = build(folder, plugin=library)
    assert keys(with_plugin)["roi_replay"] != portable["roi_replay"]
    assert {name: keys(with_plugin)[name] for name in ("encoder", "decoder")} == {
        name: portable[name] for name in ("encoder", "decoder")
    }
    assert with_plugin[1].record.plugin_file == str(library)
    image, mask = np.zeros((90, 130, 3), np.uint8), np.ones((90, 130), bool)
    expected = Gar.load(folder, "onnxruntime").open(image).describe(mask, options=Options(max_new_tokens=3))
    answer = Gar.load(folder, backend="tensorrt").open(image).describe(mask, options=Options(max_new_tokens=3))
    assert [engine.plan.plugin for engine in fake_gpu.tensorrt.engines] == [False, True, False]
    assert answer.tokens == expected.tokens


def test_a_plugin_engine_without_its_library_says_so(folder: Path, fake_gpu: FakeGpu, tmp_path: Path) -> None:
    library = tmp_path / "libgar_roi_replay.so"
    library.write_bytes(b"plugin")
    build(folder, plugin=library)
    library.unlink()
    fake_gpu.tensorrt.registry.creators.clear()  # another process
    with pytest.raises(GarBackendError, match="no such plugin library"):
        Gar.load(folder, backend="tensorrt")


def test_a_library_without_the_plugin(folder: Path, fake_gpu: FakeGpu, tmp_path: Path) -> None:
    library = tmp_path / "libother.so"
    library.write_bytes(b"something else")
    with pytest.raises(GarBackendError, match="not a replay plugin"):
        build(folder, plugin=library)


# "auto"


def test_auto_takes_tensorrt_where_there_is_a_gpu(folder: Path, fake_gpu: FakeGpu) -> None:
    assert Gar.load(folder).backend.name == "tensorrt"


def test_auto_without_a_gpu_is_quiet(folder: Path, fake_gpu: FakeGpu, recwarn: pytest.WarningsRecorder) -> None:
    fake_gpu.cuda.present = False
    assert Gar.load(folder).backend.name == "onnxruntime"
    assert not recwarn.list
    assert not (folder / "engines").exists()


def test_auto_falls_back_with_one_warning(tiny_bundle: Path, fake_gpu: FakeGpu) -> None:
    with pytest.warns(UserWarning, match=r"the GPU is not used.*fp32.*gar-export --fp16") as caught:
        assert Gar.load(tiny_bundle).backend.name == "onnxruntime"
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)


def test_auto_without_tensorrt_says_what_to_install(
    folder: Path, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.warns(UserWarning, match=r"TensorRT is not installed; pip install 'gar-edge\[tensorrt\]'"):
        assert Gar.load(folder).backend.name == "onnxruntime"


@pytest.mark.parametrize(("name", "extra"), [("tensorrt", "tensorrt"), ("tensorrt_rtx", "rtx")])
def test_a_library_asked_for_by_name_and_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(GarBackendError, match=rf"is not installed; pip install 'gar-edge\[{extra}\]'"):
        Gar.load(folder, backend=name)


def test_cuda_python_missing(folder: Path, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(GarBackendError, match="cuda-python is not installed; pip install cuda-python"):
        Gar.load(folder, backend="tensorrt")


def test_no_gpu_behind_the_library(folder: Path, fake_gpu: FakeGpu) -> None:
    fake_gpu.cuda.present = False
    with pytest.raises(GarBackendError, match=r"no NVIDIA GPU can be used here .*no device"):
        Gar.load(folder, backend="tensorrt")


def test_an_unknown_backend(folder: Path) -> None:
    with pytest.raises(GarBackendError, match="'cuda' is unknown; choose from auto, onnxruntime, tensorrt"):
        Gar.load(folder, backend="cuda")


# gar-engine


def gar_engine(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command in this process, where the fakes are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gar-engine", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def test_build_and_info(folder: Path, fake_gpu: FakeGpu, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = gar_engine(capsys, "build", folder)
    assert (code, out.count("\n")) == (0, 3)
    assert "built in" in out
    code, out, _ = gar_engine(capsys, "build", folder, "--json")
    built = json.loads(out)["engines"]
    assert [engine["built"] for engine in built] == [False] * 3
    assert {engine["recipe"]["device"]["name"] for engine in built} == {"Orin"}
    code, out, _ = gar_engine(capsys, "info", folder)
    assert (code, out.count("fits this machine")) == (0, 3)
    change_version(fake_gpu)
    code, out, _ = gar_engine(capsys, "info", folder)
    assert out.count("cannot run here: built by version 10.15.1.29, here is 10.16.0.1") == 3
    code, out, _ = gar_engine(capsys, "info", folder, "--json")
    assert {engine["misfit"] for engine in json.loads(out)["engines"]} == {
        "built by version 10.15.1.29, here is 10.16.0.1"
    }
    assert {engine["recipe"]["graph"] for engine in json.loads(out)["engines"]} == set(GRAPHS)


def test_info_without_engines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = gar_engine(capsys, "info", folder)
    assert (code, out.split(".")[0]) == (0, "No engines")


USAGE = {
    "backend": (("--backend", "onnxruntime"), "'onnxruntime' is not tensorrt or tensorrt_rtx"),
    "capacity too small": (("--capacity", "20"), "take 49 to 1024"),
    "capacity beyond the context": (("--capacity", "2000"), "take 49 to 1024"),
    "tiles beyond the context": (("--max-tiles", "99"), "take 1 to 61"),
    "no tiles": (("--max-tiles", "0"), "max-tiles"),
    "capability with tensorrt": (("--compute-capability", "8.6"), "for tensorrt_rtx"),
    "unknown option": (("--speed",), "--speed"),
}


@pytest.mark.parametrize("name", sorted(USAGE))
def test_usage_errors_exit_with_2(
    folder: Path, fake_gpu: FakeGpu, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    arguments, message = USAGE[name]
    code, out, err = gar_engine(capsys, "build", folder, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def break_nothing(gpu: FakeGpu) -> None:
    pass


def no_gpu(gpu: FakeGpu) -> None:
    gpu.cuda.present = False


@pytest.mark.parametrize(
    ("bundle", "arguments", "change", "message"),
    [
        ("nowhere", (), break_nothing, "nowhere: no such bundle"),
        (None, ("--plugin", "nowhere.so"), break_nothing, "nowhere.so: no such plugin library"),
        (None, (), no_gpu, "no NVIDIA GPU can be used here"),
    ],
)
def test_failures_are_one_line_and_exit_with_1(
    folder: Path,
    fake_gpu: FakeGpu,
    capsys: pytest.CaptureFixture[str],
    bundle: str | None,
    arguments: tuple[str, ...],
    change: Callable[[FakeGpu], None],
    message: str,
) -> None:
    change(fake_gpu)
    code, out, err = gar_engine(capsys, "build", bundle or folder, *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert message in err


def test_no_tensorrt_at_all_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    code, _, err = gar_engine(capsys, "build", folder)
    assert (code, err.count("\n")) == (1, 1)
    assert "TensorRT is not installed; pip install 'gar-edge[tensorrt]'" in err


def test_a_fake_is_as_new_as_it_says(fake_gpu: FakeGpu) -> None:
    assert load_library("tensorrt").graph_form is None
    for version, form in (("10.3.0", "compat"), ("10.13.3.9", "compat"), ("10.15.0", None), ("11.4.1", None)):
        fake_gpu.tensorrt.__version__ = version
        assert load_library("tensorrt").graph_form == form
    assert isinstance(fake_gpu.tensorrt, FakeTensorRt)
