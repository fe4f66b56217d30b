"""Command line of gar-nano: `python -m gar_edge.models.nano train | evaluate | sample`."""

from __future__ import annotations

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
    text: Annotated[int, typer.Option(min=0, help="Steps of the decoder alone, without images.")] = 1000,
    paint: Annotated[int, typer.Option(min=0, help="Steps of the decoder alone, on painted features.")] = 400,
    align: Annotated[int, typer.Option(min=0, help="Steps of the encoder alone.")] = 500,
    joint: Annotated[int, typer.Option(min=1, help="Steps of both together.")] = 2600,
    batch: Annotated[int, typer.Option(min=1, help="Scenes in a step.")] = 32,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the training itself.")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train gar-nano from scratch on freshly drawn scenes."""
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
            f"answer {record.answer:.3f} box {record.box:.4f} align {record.align:.3f}  {hits}"
        )

    cv2.setNumThreads(1)
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    plan = Plan(seed=seed, text=text, paint=paint, align=align, joint=joint, batch=batch)
    sampler = Sampler(recipe.config(), recipe.preset().max_tiles, recipe.tokenizer())
    finished = Trainer(plan, Trainee(recipe.config()), sampler, out, torch.device(device)).run(show)
    typer.echo("finished" if finished else f"stopped; run the same command again to go on ({os.fspath(out)})")


if __name__ == "__main__":
    app()
