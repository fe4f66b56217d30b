"""The options of `gar-run` that let a program check an answer: choices, structures, probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

if TYPE_CHECKING:
    from gar_edge.runtime.generate.choosing import Choosing

PANEL = "Checked answers"

Choices: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT,TEXT,…",
        help="Choose among these by probability. Given several times, each is one choice, commas and all.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
AbstainBelow: TypeAlias = Annotated[
    float,
    typer.Option(min=0.0, max=1.0, help="Choose none where the likeliest is less probable.", rich_help_panel=PANEL),
]
SchemaFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--schema",
        metavar="FILE",
        help="A JSON Schema: the answer is a value of it.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Regex: TypeAlias = Annotated[
    str | None,
    typer.Option(help="A regular expression that the answer matches.", show_default=False, rich_help_panel=PANEL),
]
GrammarFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--grammar",
        metavar="FILE",
        help="A Lark grammar that the answer keeps to.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Logprobs: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="With --json: how likely each token was, and this many likeliest in its place.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True)
class Checks:
    """What these options were given; their values as `Options` takes them."""

    choices: list[str]
    abstain_below: float
    schema_file: Path | None
    regex: str | None
    grammar_file: Path | None
    logprobs: int | None

    def choosing(self) -> Choosing | None:
        """What to choose from; `GarPromptError` where that is impossible."""
        from gar_edge.runtime.generate.choosing import Choosing

        if not self.choices:
            if self.abstain_below:
                raise typer.BadParameter("--abstain-below goes with --choices")
            return None
        one_by_one = self.choices if len(self.choices) > 1 else [text.strip() for text in self.choices[0].split(",")]
        return Choosing(one_by_one, abstain_below=self.abstain_below)

    def schema(self) -> dict[str, Any] | None:
        """The schema's file, read; `GarPromptError` where it is none."""
        if self.schema_file is None:
            return None
        from gar_edge.runtime.errors import GarPromptError
        from gar_edge.runtime.files.fields import read_json

        field = read_json(self.schema_file, GarPromptError)
        if not isinstance(field.value, dict):
            raise field.wrong("a JSON Schema, which is an object")
        return field.value

    def grammar(self) -> str | None:
        """The grammar's file, read; `GarPromptError` where it cannot be."""
        if self.grammar_file is None:
            return None
        from gar_edge.runtime.errors import GarPromptError

        try:
            return self.grammar_file.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise GarPromptError(f"{self.grammar_file}: cannot be read ({error})") from None
