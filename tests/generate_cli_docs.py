"""docs/cli.md from the commands themselves, docs/openapi.json from the server: `make docs`, or run this."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import typer

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "cli.md"
OPENAPI = DOCS / "openapi.json"
COMMANDS = {  # as typed -> module with the Typer app
    "gar-run": "gar_edge.runtime.cli.run",
    "gar-export": "gar_edge.export.cli",
    "gar-engine": "gar_edge.runtime.cli.engine",
    "gar-bench": "gar_edge.runtime.cli.bench",
    "gar-eval": "gar_edge.runtime.cli.evaluate",
    "gar-serve": "gar_edge.runtime.cli.serve",
    "gar-label": "gar_edge.runtime.cli.label",
    "python -m gar_edge.models.nano": "gar_edge.models.nano.__main__",
}
INTRODUCTION = """\
# Commands

Written by `make docs` from the commands' own help, which `--help` prints; a test compares. The exit code is 0, or 1
where something failed, or 2 for wrong arguments; then one line on stderr says what is wrong. How regions and jobs
are given: [regions.md](regions.md); videos and recordings: [video.md](video.md).
"""
WORDS = {int: "whole number", float: "number", str: "text", Path: "path"}


def page() -> str:
    """The whole file."""
    sections = [INTRODUCTION]
    for name, module in COMMANDS.items():
        sections += _command(name, typer.main.get_command(import_module(module).app), "##")
    return "\n".join(sections)


def openapi() -> dict[str, Any]:
    """The description of gar-serve's API."""
    from gar_edge.runtime import Gar
    from gar_edge.runtime.bundle.shipped import SHIPPED
    from gar_edge.runtime.serve.app import create_app

    with Gar.load(SHIPPED) as gar:
        return create_app(gar, queue=1).schema()


def _command(name: str, command: Any, heading: str) -> Iterator[str]:
    """A command, and those below it; their classes are those of whichever click this typer carries."""
    yield f"{heading} {name}\n"
    yield f"{inspect.cleandoc(command.help or '')}\n"
    if hasattr(command, "commands"):
        for below, subcommand in command.commands.items():
            yield from _command(f"{name} {below}", subcommand, heading + "#")
        return
    panels: dict[str, list[Any]] = {}
    for parameter in command.params:
        panels.setdefault(getattr(parameter, "rich_help_panel", None) or "", []).append(parameter)
    signature = inspect.signature(command.callback, eval_str=True).parameters
    for panel, parameters in panels.items():
        yield f"| {panel or 'argument or option'} | value | default | |\n|---|---|---|---|"
        yield "\n".join(_row(parameter, signature[parameter.name].annotation) for parameter in parameters) + "\n"


def _row(parameter: Any, annotation: Any) -> str:
    argument, flag = parameter.opts == [parameter.name], getattr(parameter, "is_flag", False)
    name = (parameter.metavar or parameter.name.upper()) if argument else ", ".join(parameter.opts)
    value = "" if flag or argument else _value(parameter, annotation)
    if not argument and parameter.multiple:
        value += ", may be repeated"
    cells = f"`{name}`", value, _default(parameter, flag), " ".join((parameter.help or "").split())
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _value(parameter: Any, annotation: Any) -> str:
    """What an option takes: its metavar, its choices, or its type and limits."""
    if parameter.metavar:
        return f"`{parameter.metavar}`"
    declared, info = get_args(annotation)[:2]  # of Annotated
    kind = _bare(declared)
    if issubclass(kind, Enum):
        return ", ".join(f"`{choice.value}`" for choice in kind)
    words = WORDS[kind]
    if info.min is not None:
        words += f" from {info.min:g}"
    return words if info.max is None else f"{words} to {info.max:g}"


def _bare(declared: Any) -> type:
    """T of T, T | None, list[T] | None."""
    while inner := [one for one in get_args(declared) if one is not type(None)]:
        declared = inner[0]
    return declared


def _default(parameter: Any, flag: bool) -> str:
    if parameter.required:
        return "required"
    if flag or parameter.default is None or parameter.show_default is False:
        return ""
    return f"`{parameter.default.value if isinstance(parameter.default, Enum) else parameter.default}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    OPENAPI.write_text(json.dumps(openapi(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
