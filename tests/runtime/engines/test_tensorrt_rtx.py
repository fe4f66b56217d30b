"""A TensorRT compiler without a GPU: the engine builder and `gar-engine` for real, as far as a CPU can go."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.needs import from_dev
from helpers.shapes import SHAPES

from gar_edge.export.bundle_writer import ExportOptions, export_bundle
from gar_edge.export.graphs import Precision
from gar_edge.export.progress import Silent
from gar_edge.export.quantise import Quantising
from gar_edge.models.standin import random_checkpoint_of
from gar_edge.runtime.bundle.bundle import Bundle
from gar_edge.runtime.bundle.manifest import Graph, Manifest
from gar_edge.runtime.engines.build_progress import BuildStep
from gar_edge.runtime.engines.tensorrt.builder import Target, build_engine
from gar_edge.runtime.engines.tensorrt.engines import GRAPHS, build_engines, elsewhere
from gar_edge.runtime.engines.tensorrt.installed import RTX, Library, load_library
from gar_edge.runtime.engines.tensorrt.plan import EnginePlan, Limits, Profile, plan_of
from gar_edge.runtime.engines.tensorrt.roi_replay import Replay
from gar_edge.runtime.errors import GarBackendError

pytest.importorskip("tensorrt_rtx", reason=from_dev("tensorrt-rtx"))

CAPABILITY = "8.6"
FLOAT8 = ("8.9", "12.0")  # Ada and Blackwell, which have 8-bit floats


@pytest.fixture(scope="module")
def rtx() -> Library:
    return load_library(RTX)


@pytest.fixture(scope="module", params=[p for p in Precision if p is not Precision.FP32])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("rtx") / request.param.value
    options = ExportOptions(request.param, validate=False, quantising=Quantising(samples=2))
    return Bundle.open(export_bundle(random_checkpoint_of(SHAPES["tied"], "tiny"), folder, options, Silent()).folder)


def build(
    bundle: Bundle, library: Library, watch: Callable[[BuildStep], None] = lambda _: None, capability: str = CAPABILITY
) -> list[Any]:
    machine, limits = elsewhere(library, capability), Limits.of(bundle.manifest)
    return build_engines(bundle, library, machine, limits, Replay(), False, None, watch)


def gar_engine(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gar_edge.runtime.cli.engine", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_graph_of_every_precision_builds(exported: Bundle, rtx: Library) -> None:
    for capability in FLOAT8 if exported.manifest.precision == "fp8" else (CAPABILITY,):
        steps: list[BuildStep] = []
        engines = build(exported, rtx, steps.append, capability)
        assert [engine.record.recipe.graph for engine in engines] == list(GRAPHS)
        for engine in engines:
            assert engine.built
            assert engine.file.stat().st_size == engine.record.bytes > 0
        assert {step.graph for step in steps} == set(GRAPHS)
        assert all(0 <= step.done <= step.total and step.phase and step.seconds >= 0 for step in steps)


@pytest.mark.parametrize("capability", ["7.5", "8.6"])
def test_float8_is_refused_where_the_gpu_has_none(half_nano: Path, rtx: Library, capability: str) -> None:
    """By the bundle's precision alone, in our words, before a graph is read."""
    bundle = Bundle.open(half_nano)
    bundle = Bundle(half_nano, dataclasses.replace(bundle.manifest, precision="fp8"))
    with pytest.raises(
        GarBackendError, match=rf"fp8 needs .* 8\.9 or newer.* here is any GPU .* {capability}; .*--int8"
    ):
        build(bundle, rtx, capability=capability)


def test_the_largest_grids_hold_every_other(rtx: Library, half_nano: Path) -> None:
    """The plan's profiles for the replay, against the grids that the tiler may choose."""
    manifest = Bundle.open(half_nano).manifest
    for tiles in (1, 2, 5, 7, 12, 16, 36):
        profiles = plan_of("roi_replay", manifest, Limits(tiles, 1024), plugin=False).profiles
        largest = [profile.values["grid"][-1] for profile in profiles]
        for columns in range(1, tiles + 1):
            for rows in range(1, tiles // columns + 1):
                assert any(columns <= most[0] and rows <= most[1] for most in largest)
        assert all(columns * rows <= tiles for columns, rows in largest)


def test_a_graph_that_the_compiler_refuses_is_one_line(half_nano: Path, rtx: Library) -> None:
    """The decoder with its capacity left symbolic: the reason why the builder fills it in."""
    graph = Bundle.open(half_nano).manifest.graphs["decoder"]
    profile = Profile({"length": (1, 1, 1), "capacity": (64, 64, 64)})
    with pytest.raises(
        GarBackendError, match=r"TensorRT-RTX .* cannot read the graph .*static sequence length"
    ) as error:
        build_engine(
            rtx, "decoder", half_nano / graph.files[0], graph, EnginePlan({"batch": 1}, (profile,)), False,
            Target(CAPABILITY), lambda _: None,
        )  # fmt: skip
    assert "\n" not in str(error.value)


def test_a_build_that_fails_says_why(half_nano: Path, rtx: Library) -> None:
    graph = Bundle.open(half_nano).manifest.graphs["decoder"]
    longer_than_the_cache = EnginePlan(
        {"batch": 1, "capacity": 64}, (Profile({"length": (1, 128, 128), "selected": (1, 1, 1)}),)
    )
    with pytest.raises(GarBackendError, match=r"cannot build the engine .*sequence length"):
        build_engine(
            rtx, "decoder", half_nano / graph.files[0], graph, longer_than_the_cache, False, Target(CAPABILITY),
            lambda _: None,
        )  # fmt: skip


def test_stopping_a_build_leaves_nothing(half_nano: Path, rtx: Library, tmp_path: Path) -> None:
    folder = shutil.copytree(half_nano, tmp_path / "bundle")

    def stop(step: BuildStep) -> None:
        if step.done > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(Bundle.open(folder), rtx, stop)
    assert list((folder / "engines").iterdir()) == []


def test_gar_engine_builds_keeps_and_lists(half_nano: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(half_nano, tmp_path / "bundle")
    arguments = ("build", folder, "--backend", RTX, "--compute-capability", CAPABILITY, "--json")
    first = gar_engine(*arguments)
    assert first.returncode == 0, first.stderr
    made = json.loads(first.stdout)["engines"]
    assert [(engine["recipe"]["graph"], engine["built"]) for engine in made] == [(name, True) for name in GRAPHS]
    assert made[2]["recipe"]["plan"]["fixed"] == {"capacity": 704}
    assert [profile["dims"]["batch"] for profile in made[2]["recipe"]["plan"]["profiles"]] == [
        [1, 1, 1], [1, 1, 1], [2, 4, 4],
    ]  # fmt: skip
    assert "Building decoder" in first.stderr

    again = json.loads(gar_engine(*arguments).stdout)["engines"]
    assert [engine["built"] for engine in again] == [False] * 3
    smaller = json.loads(gar_engine(*arguments, "--capacity", "500").stdout)["engines"]
    assert [engine["built"] for engine in smaller] == [False, False, True]
    assert smaller[2]["recipe"]["plan"]["fixed"]["capacity"] == 512
    single = json.loads(gar_engine(*arguments, "--batch", "1").stdout)["engines"]
    assert [engine["built"] for engine in single] == [False, False, True]
    assert single[2]["recipe"]["plan"]["fixed"] == {"batch": 1, "capacity": 704}

    listed = json.loads(gar_engine("info", folder, "--json").stdout)["engines"]
    assert {engine["key"] for engine in listed} == {engine["key"] for engine in [*made, *smaller, *single]}
    text = gar_engine("info", folder)
    assert (text.returncode, text.stdout.count("\n")) == (0, 5)
    assert "decoder: " in text.stdout
    assert "capacity 512, batch 4, length 512" in text.stdout


def test_the_same_recipe_gives_the_same_file(half_nano: Path, rtx: Library, tmp_path: Path) -> None:
    """Rebuilding replaces; it does not pile up."""
    bundle = Bundle.open(shutil.copytree(half_nano, tmp_path / "bundle"))
    machine, limits = elsewhere(rtx, CAPABILITY), Limits.of(bundle.manifest)
    for _ in range(2):
        engines = build_engines(bundle, rtx, machine, limits, Replay(), True, None, lambda _: None)
        assert all(engine.built for engine in engines)
    assert len(list((bundle.folder / "engines").iterdir())) == 2 * len(GRAPHS)


def test_manifest_ports_name_every_dimension(exported: Bundle) -> None:
    """The plan finds ranges by the names in the manifest: each that varies has one in every profile."""

    def names(graph: Graph) -> set[str]:
        return {str(dim) for port in graph.inputs for dim in port.shape if isinstance(dim, str)}

    manifest: Manifest = exported.manifest
    for name in GRAPHS:
        plan = plan_of(name, manifest, Limits.of(manifest), plugin=False)
        for profile in plan.profiles:
            assert profile.dims.keys() | plan.fixed.keys() == names(manifest.graphs[name])
