"""The options of `gar-run` that are about videos and recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PANEL = "Video"

Every = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Ask about every so many frames. Default: one a second of a file's; of a live video the newest, "
        "whenever the last answer is done.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Fps = Annotated[
    float | None,
    typer.Option(
        min=0.001, help="Ask about so many frames a second of video.", show_default=False, rich_help_panel=PANEL
    ),
]
Realtime = Annotated[
    bool,
    typer.Option(
        "--realtime",
        help="Play a file at its own pace, as a camera: frames that come while an answer is made are dropped.",
        rich_help_panel=PANEL,
    ),
]
Masks = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[K=]DIR[#LABEL]",
        help="A region: a folder with a mask for each frame, whose number from 0 on ends the file's name; of a "
        "recording a topic with mask images. Without it the region of the first frame is followed.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Clip = Annotated[
    bool,
    typer.Option(
        "--clip",
        help="Ask one question about several frames together (experimental): of the whole video, or with --every or "
        "--fps of the last ones, again with each further frame.",
        rich_help_panel=PANEL,
    ),
]
Frames = Annotated[int, typer.Option(min=1, help="Most frames of a --clip.", rich_help_panel=PANEL)]
Topic = Annotated[
    str | None,
    typer.Option(
        help="Of a recording: the topic of the images. Default: the only one there is.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Detections = Annotated[
    str | None,
    typer.Option(
        metavar="TOPIC",
        help="Of a recording: the topic of a detector's boxes; each is asked about.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Out = Annotated[
    list[Path] | None,
    typer.Option(
        help="Write what was asked and answered when: .jsonl, a page .html, or messages .mcap. Give several at will.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
