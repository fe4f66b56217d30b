"""`gar-run IMAGE --mask [K=]FILE …`: ask about regions of a picture, or of a video."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gar_edge.runtime.cli.checked_answers import (
    AbstainBelow,
    Checks,
    Choices,
    GrammarFile,
    Logprobs,
    Regex,
    SchemaFile,
)
from gar_edge.runtime.cli.shared_options import ANSWER, MaxNewTokens, MaxTiles
from gar_edge.runtime.cli.terminal import run_app
from gar_edge.runtime.cli.video_options import Clip, Detections, Every, Fps, Frames, Masks, Out, Realtime, Topic
from gar_edge.runtime.engines.names import BackendName
from gar_edge.runtime.errors import GarPromptError

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)

REGIONS, ENGINE, MANY = "Regions", "Model and engine", "Many questions"


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def run(
    image: Annotated[
        str | None,
        typer.Argument(
            metavar="[IMAGE]",
            help="The picture: PNG, JPEG, WebP, … Or a video: a file (.mp4, .avi, .mkv, …; of any name with an option "
            "of the panel Video), a recording (.mcap, .db3, .bag, rosbag2's folder), a camera's number or device, an "
            "address such as rtsp://… Left out with --jobs.",
            show_default=False,
        ),
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[K=]FILE[#LABEL]",
            help="A region: an image that is not black where the region is, or one LABEL of a palette or grey image. "
            "Regions are numbered 0, 1, 2… unless K= says which `<PromptK>` it is. Give one to five.",
            show_default=False,
            rich_help_panel=REGIONS,
        ),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[K=]X1,Y1,X2,Y2",
            help="A region: what the box left,upper,right,lower holds, cut out by GrabCut. Pixels; or fractions, where "
            "all numbers lie within 0…1 and one has a decimal point.",
            show_default=False,
            rich_help_panel=REGIONS,
        ),
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[K=]X,Y",
            help="A point of a region; several without K=, or of one K=, are one region. With a box of the same K= it "
            "says more about that region.",
            show_default=False,
            rich_help_panel=REGIONS,
        ),
    ] = None,
    not_point: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[K=]X,Y",
            help="A point that is not of the region.",
            show_default=False,
            rich_help_panel=REGIONS,
        ),
    ] = None,
    scribble: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[K=]FILE",
            help="A region: strokes on black or transparent ground, red ones outside it, all others inside.",
            show_default=False,
            rich_help_panel=REGIONS,
        ),
    ] = None,
    regions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[K=]FILE[#N]",
            help="Several regions: JSON (docs/regions.md; COCO and labelme too), or an image whose labels are regions. "
            "K= is the first one's number.",
            show_default=False,
            rich_help_panel=REGIONS,
        ),
    ] = None,
    box_as_mask: Annotated[
        bool, typer.Option("--box-as-mask", help="Take boxes as they are.", rich_help_panel=REGIONS)
    ] = False,
    sam_encoder: Annotated[
        Path | None,
        typer.Option(
            help="Segment-Anything image encoder (ONNX), instead of GrabCut.",
            show_default=False,
            rich_help_panel=REGIONS,
        ),
    ] = None,
    sam_decoder: Annotated[
        Path | None,
        typer.Option(help="Segment-Anything mask decoder (ONNX).", show_default=False, rich_help_panel=REGIONS),
    ] = None,
    question: Annotated[
        str | None,
        typer.Option(
            "-q",
            "--question",
            help="Names the regions as `<Prompt0>`, … Without it the region is described.",
            show_default=False,
            rich_help_panel=ANSWER,
        ),
    ] = None,
    max_new_tokens: MaxNewTokens = 1024,
    max_tiles: MaxTiles = None,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="0: always the likeliest token; above: draw.", rich_help_panel=ANSWER)
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Draw from the likeliest tokens of this share.", rich_help_panel=ANSWER),
    ] = 1.0,
    top_k: Annotated[
        int, typer.Option(min=0, help="Draw from so many likeliest tokens; 0: all.", rich_help_panel=ANSWER)
    ] = 0,
    seed: Annotated[
        int | None, typer.Option(help="Makes draws repeatable.", show_default=False, rich_help_panel=ANSWER)
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="A text that ends the answer; may be repeated.", show_default=False, rich_help_panel=ANSWER),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="End the answer after so long. Default: no limit.",
            show_default=False,
            rich_help_panel=ANSWER,
        ),
    ] = None,
    speculate: Annotated[
        int,
        typer.Option(
            min=0,
            help="Guess so many tokens ahead where the text repeats itself; the answer stays the same.",
            rich_help_panel=ANSWER,
        ),
    ] = 0,
    choices: Choices = None,
    abstain_below: AbstainBelow = 0.0,
    schema: SchemaFile = None,
    regex: Regex = None,
    grammar: GrammarFile = None,
    logprobs: Logprobs = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object instead of the text; of a video, one a line for each answered frame.",
            rich_help_panel=ANSWER,
        ),
    ] = False,
    overlay: Annotated[
        Path | None,
        typer.Option(
            help="Write the picture here, with its regions in colours and numbers and the answer beneath.",
            show_default=False,
            rich_help_panel=ANSWER,
        ),
    ] = None,
    every: Every = None,
    fps: Fps = None,
    realtime: Realtime = False,
    masks: Masks = None,
    clip: Clip = False,
    frames: Frames = 8,
    topic: Topic = None,
    detections: Detections = None,
    out: Out = None,
    interactive: Annotated[
        bool,
        typer.Option(
            "--interactive", help="Keep asking about the same picture; :help lists commands.", rich_help_panel=MANY
        ),
    ] = False,
    jobs: Annotated[
        Path | None,
        typer.Option(
            help="Answer all jobs of a .json or .jsonl file: picture, regions and question each.",
            show_default=False,
            rich_help_panel=MANY,
        ),
    ] = None,
    jsonl: Annotated[
        Path | None,
        typer.Option(
            help="Where --jobs writes: a JSON line per job. Jobs that are there already are left out.",
            show_default=False,
            rich_help_panel=MANY,
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "-m",
            "--model",
            help="Bundle folder. Default: the one exported last, or else gar-nano.",
            show_default=False,
            rich_help_panel=ENGINE,
        ),
    ] = None,
    backend: Annotated[
        BackendName,
        typer.Option(
            help="The engine. auto: on a GPU TensorRT or else cuda (ONNX Runtime there), if they can be had; else "
            "onnxruntime on the processor.",
            rich_help_panel=ENGINE,
        ),
    ] = BackendName.AUTO,
    compat: Annotated[
        bool,
        typer.Option(
            "--compat", help="Answer with the decoder that gar-export --compat wrote.", rich_help_panel=ENGINE
        ),
    ] = False,
    threads: Annotated[int, typer.Option(min=0, help="Processor threads; 0: all cores.", rich_help_panel=ENGINE)] = 0,
) -> None:
    """Describe a region of a picture or video, or answer a question about several.

    `gar-run photo.jpg --mask cup.png`

    `gar-run photo.jpg --box 0=10,20,90,110 --point 1=200,150 -q "Is <Prompt0> on <Prompt1>?"`

    `gar-run drive.mp4 --box 10,20,90,110 --fps 2 --json`

    `gar-run drive.mcap --topic /camera/image_raw --detections /detections --out answers.mcap --out answers.html`
    """
    from gar_edge.runtime.cli.asking import Asking, Output, ask_about
    from gar_edge.runtime.cli.job_run import answer_jobs
    from gar_edge.runtime.cli.loading import EngineSettings
    from gar_edge.runtime.cli.region_options import RegionArguments, choose_segmenter
    from gar_edge.runtime.cli.watch import watch
    from gar_edge.runtime.files.addresses import local_file
    from gar_edge.runtime.generate.options import Options
    from gar_edge.runtime.jobs.job import JobSettings
    from gar_edge.runtime.recordings.bag import names_recording
    from gar_edge.runtime.video.capture import names_video

    given = RegionArguments(
        mask=mask or (), box=box or (), point=point or (), not_point=not_point or (), scribble=scribble or (),
        regions=regions or (), masks=masks or (), recorded=image is not None and names_recording(image),
    )  # fmt: skip
    video = bool(every or fps or realtime or masks or clip or topic or detections or out)
    engine = EngineSettings(model=model, backend=backend.value, compat=compat, threads=threads)
    checks = Checks(choices or [], abstain_below, schema, regex, grammar, logprobs)
    try:
        options = Options(
            max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, top_k=top_k, seed=seed,
            stop=tuple(stop or ()), seconds=seconds, speculate=speculate,
            choosing=checks.choosing(), schema=checks.schema(), regex=regex, grammar=checks.grammar(),
            logprobs=logprobs,
        )  # fmt: skip
    except GarPromptError as error:
        raise typer.BadParameter(str(error)) from None
    if (jobs is None) != (jsonl is None):
        raise typer.BadParameter("--jobs FILE and --jsonl FILE go together: what is asked, and where the answers go")
    if jobs is not None and jsonl is not None:
        if image or given or video or question is not None or interactive or overlay or as_json:
            raise typer.BadParameter("with --jobs, pictures, regions and questions stand in its file")
        segment = choose_segmenter(box_as_mask, sam_encoder, sam_decoder, threads)
        settings = JobSettings(folder=jobs.parent, options=options, segment=segment, max_tiles=max_tiles)
        answer_jobs(jobs, jsonl, engine, settings)
        return
    if image is None:
        raise typer.BadParameter("no picture given", param_hint="IMAGE")
    image = local_file(image)
    if not given and detections is None:
        raise typer.BadParameter("no region given: mark one with --mask, --box, --point, --scribble or --regions")
    segment = choose_segmenter(box_as_mask, sam_encoder, sam_decoder, threads)
    asking = Asking(arguments=given, question=question, options=options, segment=segment, max_tiles=max_tiles)
    if video or names_video(image) or given.recorded:
        if interactive or overlay is not None:
            raise typer.BadParameter("--interactive and --overlay are for pictures, not for videos")
        watch(
            image, asking, engine, every=every, fps=fps, realtime=realtime, as_json=as_json, topic=topic,
            detections=detections, out=out or (), frames=frames if clip else None,
        )  # fmt: skip
        return
    output = Output(as_json=as_json, overlay=overlay, max_new_tokens=max_new_tokens)
    ask_about(Path(image), asking, engine, output, interactive=interactive)


def main() -> None:
    """Entry point of `gar-run`."""
    run_app(app)


if __name__ == "__main__":
    main()
