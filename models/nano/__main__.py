"""Command line of gar-nano: `python -m gar_edge.models.nano train | ship | evaluate | questions | sample | curves`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def nano() -> None:
    """gar-nano: a small GAR that knows drawn shapes."""


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder of the run: its log and checkpoint. An unfinished run goes on.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights and of every scene.")] = 0,
    text: Annotated[int, typer.Option(min=0, help="Steps of the decoder alone, without images.")] = 800,
    align: Annotated[int, typer.Option(min=0, help="Steps of the encoder alone.")] = 320,
    joint: Annotated[int, typer.Option(min=1, help="Steps of both together.")] = 2150,
    batch: Annotated[int, typer.Option(min=1, help="Scenes in a step.")] = 20,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the training itself.")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    rate: Annotated[float, typer.Option(min=0, help="Peak learning rate of the matrices.")] = 1e-2,
    start: Annotated[
        Path | None,
        typer.Option("--start-from", exists=True, file_okay=False, help="Begin with another run's weights."),
    ] = None,
) -> None:
    """Train gar-nano on freshly drawn scenes, from scratch or from another run's weights."""
    import cv2
    import torch

    from gar_edge.models.nano import recipe
    from gar_edge.models.nano.network import Trainee
    from gar_edge.models.nano.samples import Sampler
    from gar_edge.models.nano.training import Plan, Record, Trainer

    def show(record: Record) -> None:
        hits = " ".join(f"{task} {100 * share:.0f}" for task, share in record.hits.items())
        typer.echo(
            f"{record.step}/{plan.steps} {record.phase} {record.minutes:.1f} min  "
            f"answer {record.answer:.3f} box {record.box:.4f} align {record.align:.3f} names {record.names:.3f}  {hits}"
        )

    cv2.setNumThreads(1)
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    plan = Plan(seed=seed, text=text, align=align, joint=joint, batch=batch, muon_rate=rate)
    sampler = Sampler(recipe.config(), recipe.preprocessing(), recipe.tokenizer())
    trainer = Trainer(plan, Trainee(recipe.config()), sampler, out, torch.device(device), start)
    finished = trainer.run(show)
    typer.echo("finished" if finished else f"stopped; run the same command again to go on ({os.fspath(out)})")


@app.command()
def ship(
    run: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of a training run.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint.")],
) -> None:
    """Write a run's last weights as a checkpoint in the released format."""
    from gar_edge.models.nano import recipe
    from gar_edge.models.nano.release import released_tensors, save
    from gar_edge.models.nano.training import trained

    model = trained(run)
    tensors = released_tensors(model.config, model.encoder, model.decoder)
    save(out, recipe.preset(), tensors, recipe.tokenizer(), recipe.chat_template())
    typer.echo(f"wrote {out}")


@app.command()
def evaluate(
    model: Annotated[Path, typer.Option(exists=True, file_okay=False, help="A bundle made by gar-export.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scenes.")] = 1,
    count: Annotated[int, typer.Option(min=1, help="Number of scenes.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Write a picture of sample questions here.")] = None,
    zero_replay: Annotated[bool, typer.Option("--zero-replay", help="Replace the replayed features by zeros.")] = False,
    against: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Another bundle: how many answers are the same?"),
    ] = None,
) -> None:
    """Accuracy of an exported bundle on freshly drawn scenes."""
    from rich.console import Console
    from rich.progress import track

    from gar_edge.models.nano import evaluation
    from gar_edge.models.nano.picture import sheet

    console = Console()
    scenes = track(range(count), "scenes", console=Console(stderr=True), transient=True)
    result = evaluation.evaluate(model, seed, scenes, zero_replay=zero_replay)
    report = result.report()
    if against is not None:
        other = evaluation.evaluate(against, seed, range(count))
        report["agreement"] = evaluation.agreement(result, other)
    if plot is not None:
        sheet(result.answers).save(plot)
    if as_json:
        typer.echo(json.dumps(report))
        return
    console.print(evaluation.table(report))


@app.command()
def questions(
    out: Annotated[Path, typer.Option(help="Folder to write: pictures and questions.jsonl.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scenes.")] = 1,
    count: Annotated[int, typer.Option(min=1, help="Number of scenes.")] = 200,
    each: Annotated[
        int | None, typer.Option(min=1, help="Questions of a scene at most, drawn. Default: all.", show_default=False)
    ] = None,
) -> None:
    """Write the exam's questions for `gar-eval run regions`, with their answers."""
    from rich.console import Console
    from rich.progress import track

    from gar_edge.models.nano.questions import write_questions

    scenes = track(range(count), "scenes", console=Console(stderr=True), transient=True)
    written = write_questions(out, seed, scenes, each=each)
    typer.echo(f"wrote {written} questions about {count} scenes: {out}")


@app.command()
def curves(
    log: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="A run's log.jsonl.")],
    out: Annotated[Path, typer.Option(help="The picture to write.")],
) -> None:
    """Draw a run's curves."""
    from gar_edge.models.nano.curves import curves as draw
    from gar_edge.models.nano.curves import read

    draw(read(log)).save(out)


@app.command()
def sample(
    out: Annotated[Path, typer.Option(help="The picture to write.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scenes.")] = 1,
    count: Annotated[int, typer.Option(min=1, help="Number of scenes.")] = 12,
) -> None:
    """Draw sample scenes with questions and true answers."""
    from gar_edge.models.nano import exam
    from gar_edge.models.nano.picture import sheet

    sheet([(question, None) for index in range(count) for question in exam.scene(seed, index)]).save(out)


if __name__ == "__main__":
    app()
