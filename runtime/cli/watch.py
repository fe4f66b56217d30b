"""Which way of asking about a video its options mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gar_edge.runtime.cli.asking import Asking
from gar_edge.runtime.cli.clips import watch_clip
from gar_edge.runtime.cli.detected import watch_detections
from gar_edge.runtime.cli.frame_choice import FrameChoice
from gar_edge.runtime.cli.loading import EngineSettings
from gar_edge.runtime.cli.watching import Watching, watch_video


def watch(
    source: str,
    asking: Asking,
    engine: EngineSettings,
    *,
    every: int | None,
    fps: float | None,
    realtime: bool,
    as_json: bool,
    topic: str | None,
    detections: str | None,
    out: Sequence[Path],
    frames: int | None,
) -> None:
    """Frame by frame, detection by detection, or in clips of so many frames."""
    choice = FrameChoice(every=every, fps=fps, realtime=realtime)
    watching = Watching(source, choice, as_json, topic=topic, detections=detections, out=out)
    if frames is not None:
        watch_clip(watching, asking, engine, frames=frames)
    elif detections is not None:
        watch_detections(watching, asking, engine)
    else:
        watch_video(watching, asking, engine)
