"""Engines on disk: what makes two of them different, what is whole, what is refused, what is left behind."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.gpu import FakeGpu
from helpers.engine_building import build
from helpers.needs import ANOTHER_USER

from gar_edge.runtime import GarBackendError
from gar_edge.runtime.bundle.bundle import read_manifest
from gar_edge.runtime.engines.cuda.api import Device
from gar_edge.runtime.engines.tensorrt.plan import EnginePlan, Profile
from gar_edge.runtime.engines.tensorrt.store import EngineRecipe, EngineRecord, Machine, Store, misfit
from gar_edge.runtime.files.atomic import sweep

RECIPE = EngineRecipe(
    "decoder", {"decoder.onnx": "aa", "decoder.onnx.data": "bb"}, "tensorrt", "10.15.1", Device("8.7", "Orin"),
    EnginePlan({"batch": 1, "capacity": 704}, (Profile({"length": (1, 512, 512)}), Profile({"length": (1, 1, 1)}))),
)  # fmt: skip
CHANGES: dict[str, dict[str, Any]] = {
    "graph": {"graph": "encoder"},
    "the graph's file": {"files": {**RECIPE.files, "decoder.onnx": "ab"}},
    "the weights": {"files": {**RECIPE.files, "decoder.onnx.data": "ab"}},
    "engine": {"engine": "tensorrt_rtx"},
    "version": {"version": "10.15.2"},
    "GPU": {"device": Device("8.7", "Orin Nano")},
    "compute capability": {"device": Device("8.9", "Orin")},
    "capacity": {"plan": EnginePlan({"batch": 1, "capacity": 768}, RECIPE.plan.profiles)},
    "profiles": {"plan": EnginePlan(RECIPE.plan.fixed, RECIPE.plan.profiles[:1])},
    "the replay's form": {"replay": "aot"},
    "plugin": {"plugin": "cc"},
}


@pytest.mark.parametrize("what", sorted(CHANGES))
def test_the_key_changes_with(what: str) -> None:
    assert dataclasses.replace(RECIPE, **CHANGES[what]).key() != RECIPE.key()


def test_the_key_is_of_the_content_not_its_order() -> None:
    turned = dataclasses.replace(RECIPE, files=dict(reversed(list(RECIPE.files.items()))))
    assert turned.key() == RECIPE.key() == dataclasses.replace(RECIPE).key()


def test_records_survive_the_disk(tmp_path: Path) -> None:
    store, record = Store(tmp_path), EngineRecord(RECIPE, 4, 1.5, "gar-edge 0", "/plugin.so")
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
    store.put(EngineRecord(RECIPE, 4, 1.5, "gar-edge 0"), b"1234")
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
        Store(tmp_path).put(EngineRecord(RECIPE, 4, 1.5, "gar-edge 0"), content)
    assert list((tmp_path / "engines").iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason=ANOTHER_USER)
def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(GarBackendError, match="engines cannot be written"):
        Store(tmp_path).put(EngineRecord(RECIPE, 4, 1.5, "gar-edge 0"), b"1234")


def test_a_file_in_the_folders_place_is_one_line(own_nano: Path, fake_gpu: FakeGpu) -> None:
    (own_nano / "engines").write_text("not a folder")
    with pytest.raises(GarBackendError, match="engines cannot be written"):
        build(own_nano)


def test_scratch_files_of_others_stay_for_an_hour(tmp_path: Path) -> None:
    """They may be written right now; what was written under its own name is never touched."""
    names = (".a.engine.partial-1-2", ".b.engine.partial-1-2", "c.engine", ".partial-1-2-notes")
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    for name in names[1:]:
        os.utime(tmp_path / name, (0, 0))
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {names[0], names[2], names[3]}
    sweep(tmp_path / "missing")


def test_misfits_are_named(half_nano: Path) -> None:
    manifest = read_manifest(half_nano)
    files = {name: manifest.files[name].sha256 for name in manifest.graphs["decoder"].files}
    recipe = dataclasses.replace(RECIPE, files=files)
    machine = Machine("tensorrt", "10.15.1", Device("8.7", "Orin"))

    def why(recipe: EngineRecipe) -> str | None:
        return misfit(EngineRecord(recipe, 1, 1.0, ""), manifest, machine)

    assert why(recipe) is None
    assert why(dataclasses.replace(recipe, engine="tensorrt_rtx")) == "built for tensorrt_rtx, not tensorrt"
    assert why(dataclasses.replace(recipe, version="10.3.0")) == "built by version 10.3.0, here is 10.15.1"
    other = why(dataclasses.replace(recipe, device=Device("8.9", "RTX 4090")))
    assert other == "built for RTX 4090 of compute capability 8.9, here is Orin of compute capability 8.7"
    assert why(RECIPE) == "built from other graphs than this bundle's"
