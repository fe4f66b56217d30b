"""Imports point one way: from a room to the rooms below it, types included, and never in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("runtime", "models", "calibration", "export")  # from below: each may use those before it

# The rooms of runtime/ from below; a name in the same line may not import its neighbours.
ROOMS = (
    {"errors"},
    {"files"},
    {"bundle"},
    {"images"},
    {"engines"},
    {"regions", "video"},
    {"timeline"},
    {"recordings"},
    {"model"},
    {"generate"},
    {"asking", "chat"},
    {"scene", "clip"},
    {"gar"},
    {"live", "jobs", "serve"},
    {"bench", "evaluate", "label"},
    {"cli"},
)
BACK_ENDS = ("onnxruntime", "cuda", "tensorrt", "roi_replay_plugin")
MAY_NAME_BACK_ENDS = {
    "runtime.engines.choice",
    "runtime.cli.engine",
    "runtime.cli.engine_progress",
    "runtime.regions.segmenters.sam",
    "runtime.bench.roof",
    "runtime.bench.kernels",
}
TERMINAL = {"typer", "rich", "click"}
LONGEST = 350  # lines of a module


def modules() -> dict[str, Path]:
    """Every module of the packages: "runtime.gar" -> its file."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """What a module imports, at its top, inside functions and under TYPE_CHECKING, without "gar_edge."."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            # `from package import module` names the module, `from module import thing` the module it comes from.
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = [one if one.removeprefix("gar_edge.") in MODULES else node.module for one in inner]
        else:
            continue
        yield from (target.removeprefix("gar_edge.") for target in targets)


ARROWS = {name: sorted({target for target in imports(name) if target in MODULES} - {name}) for name in MODULES}


def room(name: str) -> str:
    """The room of a module of runtime/: "engines" for "runtime.engines.cuda.api"."""
    return name.split(".")[1]


def floor(name: str) -> int:
    return next(level for level, rooms in enumerate(ROOMS) if room(name) in rooms)


def inside_runtime() -> list[str]:
    return [name for name in MODULES if name.startswith("runtime.")]


def test_packages_point_down() -> None:
    wrong = [
        f"{name} -> {target}"
        for name, targets in ARROWS.items()
        for target in targets
        if PACKAGES.index(target.split(".")[0]) > PACKAGES.index(name.split(".")[0])
    ]
    assert not wrong


def test_rooms_point_down() -> None:
    wrong = [
        f"{name} -> {target}"
        for name in inside_runtime()
        for target in ARROWS[name]
        if target != "runtime" and room(target) != room(name) and floor(target) >= floor(name)
    ]
    assert not wrong


def test_no_circle() -> None:
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for target in ARROWS[name]:
                walk(target, (*way, name))
            done.add(name)

    for name in MODULES:
        if name != "runtime":  # the package's face imports what it offers
            walk(name, ())


def test_only_the_chooser_names_back_ends() -> None:
    """Beside the back ends, the commands that build engines, SAM and the benchmark's, whose graphs are their own."""
    inside = tuple(f"runtime.engines.{one}" for one in BACK_ENDS)
    wrong = [
        f"{name} -> {target}"
        for name in inside_runtime()
        for target in ARROWS[name]
        if target.startswith(inside) and not name.startswith(inside) and name not in MAY_NAME_BACK_ENDS
    ]
    assert not wrong


@pytest.mark.parametrize("name", inside_runtime())
def test_only_the_commands_know_the_terminal(name: str) -> None:
    if room(name) != "cli":
        assert not {target.split(".")[0] for target in imports(name)} & TERMINAL


@pytest.mark.parametrize("name", MODULES)
def test_a_module_can_be_held_in_the_head(name: str) -> None:
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_nothing_below_the_facade_takes_the_whole_model() -> None:
    above = ROOMS.index({"gar"})
    wrong = [
        name
        for name in inside_runtime()
        if floor(name) < above and any(target in ("runtime.gar", "runtime") for target in ARROWS[name])
    ]
    assert not wrong
