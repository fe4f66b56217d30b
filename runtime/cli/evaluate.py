"""`gar-eval run | score | compare`: benchmarks and your own questions, and one bundle against another."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec, TypeAlias

import typer

from gar_edge.runtime.cli.shared_options import Backend, Model, Threads
from gar_edge.runtime.cli.terminal import run_app
from gar_edge.runtime.engines.names import BackendName

if TYPE_CHECKING:
    from gar_edge.runtime.evaluate.compare import Comparison
    from gar_edge.runtime.evaluate.score import Score
    from gar_edge.runtime.evaluate.task import Item, Task

P = ParamSpec("P")

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False
)

TaskName: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help="gar-bench-vqa, gar-bench-caption-simple, gar-bench-caption-detailed, dlc-bench, ferret-bench, or "
        "regions: questions of your own.",
    ),
]
Data: TypeAlias = Annotated[
    Path,
    typer.Option(exists=True, file_okay=False, help="The benchmark's folder: its annotations and its pictures."),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Page: TypeAlias = Annotated[
    Path | None, typer.Option(help="Write an HTML page with pictures of these here.", show_default=False)
]


def refused(function: Callable[P, None]) -> Callable[P, None]:
    """A command whose data and answers count as arguments: what is wrong with them is no failure, but exit code 2."""

    @functools.wraps(function)
    def called(*arguments: P.args, **options: P.kwargs) -> None:
        from gar_edge.runtime.errors import GarPromptError

        try:
            function(*arguments, **options)
        except GarPromptError as error:
            raise typer.BadParameter(str(error)) from None

    return called


@app.callback(context_settings={"help_option_names": ["-h", "--help"]})
def evaluate() -> None:
    """How well a bundle answers, and whether another answers as well."""


@app.command()
@refused
def run(
    task: TaskName,
    data: Data,
    out: Annotated[Path, typer.Option(help="Where the answers go; what is there already is not asked again.")],
    model: Model = None,
    as_released: Annotated[
        bool,
        typer.Option(
            "--as-released",
            help="Ask as the released evaluation does too, into files of their own: every region with the last one's "
            "box, and regions beyond the fifth by name alone.",
        ),
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer; the released evaluation's.")] = 1024,
    backend: Backend = BackendName.AUTO,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Answer a task's questions, each exactly once; the same command goes on where it was stopped.

    Answers are greedy, and written as the released evaluations write them, for the benchmarks' own judges.

    `gar-eval run gar-bench-vqa -m bundle --data GAR-Bench --out answers`
    """
    from gar_edge.runtime.cli.job_bar import JobBar
    from gar_edge.runtime.cli.loading import EngineSettings
    from gar_edge.runtime.evaluate.run import Run, run_task
    from gar_edge.runtime.evaluate.tasks import task_of

    chosen = task_of(task)
    questions = len(chosen.read(data))  # first of all: what is no data needs no model
    done: list[Run] = []
    with EngineSettings(model=model, backend=backend.value, compat=False, threads=threads).load() as gar:
        for released in (False, True) if as_released else (False,):
            with JobBar(questions, sys.stderr) as bar:
                done.append(
                    run_task(
                        chosen, gar, data, out,
                        as_released=released, max_new_tokens=max_new_tokens, report=bar,
                    )
                )  # fmt: skip
    if as_json:
        print(json.dumps([one.to_json() for one in done] if as_released else done[0].to_json()))
        return
    for one in done:
        print(f"{one.task}: {one.answered} of {one.questions} questions answered: {one.answers}")
        if one.missing:
            print(f"  {len(one.missing)} pictures are not in {data}: {_few(one.missing)}", file=sys.stderr)
        if one.too_many:
            print(
                f"  {one.too_many} questions name more regions than a prompt takes, and were not asked", file=sys.stderr
            )
        for key, error in list(one.failed.items())[:5]:
            print(f"  {key}: {error}", file=sys.stderr)
        if len(one.failed) > 5:
            print(f"  and {len(one.failed) - 5} more that failed", file=sys.stderr)


@app.command()
@refused
def score(
    task: TaskName,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Answers, or a judge's marks of them.")],
    data: Data,
    page: Page = None,
    as_json: AsJson = False,
) -> None:
    """Mark a file of answers: word for word where the task has right answers, else by a judge's file.

    Beside `NAME.json`, marks of `NAME-as-released.json` are printed too, where that is there.
    """
    from gar_edge.runtime.evaluate.run import AS_RELEASED
    from gar_edge.runtime.evaluate.score import score as mark
    from gar_edge.runtime.evaluate.tasks import task_of

    chosen = task_of(task)
    scores = {"": mark(chosen, data, file)}
    released = file.with_name(f"{file.stem}{AS_RELEASED}{file.suffix}")
    if released.is_file():
        scores["as released"] = mark(chosen, data, released)
    if page is not None:
        _write_wrong(chosen.name, chosen.read(data), scores[""], data, page)
    if as_json:
        whole = {name.replace(" ", "_"): one.to_json() for name, one in scores.items() if name}
        print(json.dumps(scores[""].to_json() | whole))
    else:
        _print_scores(scores)


@app.command()
@refused
def compare(
    task: TaskName,
    a: Annotated[Path, typer.Argument(exists=True, help="Answers, a judge's marks of them, or a bundle to ask.")],
    b: Annotated[Path, typer.Argument(exists=True, help="The same of another bundle.")],
    data: Data,
    out: Annotated[
        Path | None,
        typer.Option(help="Where answers of bundles go, each in a folder by its name.", show_default=False),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Exit with 1 where B's share of right answers is lower by more than this (0.01: one in a hundred).",
            show_default=False,
        ),
    ] = None,
    page: Page = None,
    as_json: AsJson = False,
) -> None:
    """Say how far two bundles agree, and whether B is worse, with the uncertainty of that.

    `gar-eval compare gar-bench-vqa fp32/gar-bench-vqa.json int8/gar-bench-vqa.json --data GAR-Bench --margin 0.01`

    `gar-eval compare regions bundle-fp32 bundle-int8 --data my-questions --out answers --margin 0.01`
    """
    from gar_edge.runtime.errors import GarError
    from gar_edge.runtime.evaluate.compare import compare as against
    from gar_edge.runtime.evaluate.run import read_answers
    from gar_edge.runtime.evaluate.score import NotMarkedError
    from gar_edge.runtime.evaluate.score import score as mark
    from gar_edge.runtime.evaluate.tasks import task_of

    chosen = task_of(task)
    items = chosen.read(data)
    a, b = (_answers_of(chosen, path, data, out) for path in (a, b))
    try:
        one, other = mark(chosen, data, a), mark(chosen, data, b)
        answers, found = (
            (one.answers, other.answers),
            against(items, one.answers, other.answers, one.marks, other.marks),
        )
    except NotMarkedError:
        if margin is not None:
            raise
        answers = tuple(read_answers(chosen, items, a)), tuple(read_answers(chosen, items, b))
        found = against(items, *answers)
    if page is not None:
        _write_changed(chosen.name, items, found, answers, data, page)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        _print_comparison(found)
    if margin is not None and (found.lacking or not found.whole.questions):
        raise typer.BadParameter(
            f"{b} lacks {found.lacking} of the {found.lacking + found.whole.questions} questions that {a} answers; "
            "a gate needs them all"
        )
    if margin is not None and found.worse(margin):
        raise GarError(f"{b} is worse than {a} by {-(found.whole.difference or 0):.1%}, more than {margin:.1%}")


def _answers_of(task: Task, path: Path, data: Path, out: Path | None) -> Path:
    """A file of answers as it is; a bundle's are asked for."""
    from gar_edge.runtime.cli.job_bar import JobBar
    from gar_edge.runtime.cli.loading import EngineSettings
    from gar_edge.runtime.evaluate.run import identity, run_task

    if not path.is_dir():
        return path
    if out is None:
        raise typer.BadParameter(f"{path} is a bundle; --out says where its answers go")
    engine = EngineSettings(model=path, backend=BackendName.AUTO.value, compat=False, threads=0)
    with engine.load() as gar, JobBar(len(task.read(data)), sys.stderr) as bar:
        return run_task(task, gar, data, out / f"{gar.manifest.name}-{identity(gar)}", report=bar).answers


def _few(names: tuple[str, ...]) -> str:
    from gar_edge.runtime.files.addresses import shown

    return ", ".join(map(shown, names[:5])) + (" …" if len(names) > 5 else "")


def _print_scores(scores: dict[str, Score]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    first = scores[""]
    columns = ["", *(name or "answers" for name in scores), *(["published"] if first.published else [])]
    table = Table(*columns, title=first.task)
    for figure in first.figures:
        cells = [_figure(one.figures.get(figure)) for one in scores.values()]
        if figure in ("accuracy", "average", "ratio"):
            cells += [", ".join(f"{size} {value:.3f}" for size, value in first.published.items())]
        table.add_row(figure, *cells[: len(columns) - 1])
    for kind in first.kinds if len(first.kinds) > 1 else ():
        cells = []
        for one in scores.values():
            mean, count = one.kinds.get(kind, (0.0, 0))
            cells.append(f"{mean:.3f} of {count}")
        table.add_row(escape(kind), *cells)
    table.add_row("not marked", *(str(one.missing) for one in scores.values()))
    Console().print(table)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if value <= 1 else f"{value:.2f}"


def _print_comparison(found: Comparison) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="of 100 questions; B - A with 95 % of where it lies")
    for name in ("", "questions", "agree", "A", "B", "B - A", "p"):
        table.add_column(name, no_wrap=True, justify="right" if name else "left")
    for name, one in [("all", found.whole), *(found.kinds.items() if len(found.kinds) > 1 else ())]:
        cells = [str(one.questions), "" if one.agreement is None else f"{100 * one.agreement:.1f}"]
        if one.difference is not None and one.a is not None and one.b is not None and one.interval is not None:
            low, high = one.interval
            cells += [f"{100 * one.a:.1f}", f"{100 * one.b:.1f}"]
            cells.append(f"{100 * one.difference:+.1f} ({100 * low:+.1f} … {100 * high:+.1f})")
            cells.append("" if one.p is None else f"{one.p:.3f}")
        table.add_row(escape(name), *cells)
    Console().print(table)


def _write_wrong(task: str, items: Sequence[Item], marked: Score, data: Path, page: Path) -> None:
    from gar_edge.runtime.evaluate.page import Case, write_page

    cases = [
        Case(item, {"said": answer, **_right(item)})
        for item, answer, mark in zip(items, marked.answers, marked.marks, strict=True)
        if answer is not None and mark is not None and mark < 1
    ]
    write_page(page, f"{task}: what went wrong", f"{len(cases)} answers.", cases, data)


def _write_changed(
    task: str,
    items: Sequence[Item],
    found: Comparison,
    answers: tuple[Sequence[str | None], Sequence[str | None]],
    data: Path,
    page: Path,
) -> None:
    from gar_edge.runtime.evaluate.page import Case, write_page

    a, b = answers
    cases = [
        Case(items[place], {"A": a[place] or "", "B": b[place] or "", **_right(items[place])})
        for place in found.changed
    ]
    write_page(page, f"{task}: answers that changed", f"{len(cases)} answers.", cases, data)


def _right(item: Item) -> dict[str, str]:
    return {} if item.truth is None else {"right": item.truth}


def main() -> None:
    """Entry point of `gar-eval`."""
    run_app(app)


if __name__ == "__main__":
    main()
