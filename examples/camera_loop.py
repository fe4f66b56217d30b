"""Describe what is in a box, again and again, while a camera runs: `python examples/camera_loop.py 0 220 120 420 360`.

The loop reads frames at the camera's own pace and never waits for an answer. Give a video file instead of the camera's
number to try it; the box is in pixels: left, top, right, bottom.
"""

from __future__ import annotations

import sys
import time

import cv2
import numpy as np

from gar_edge.runtime import Answer, Frame, Gar, GarError, LiveAnswers


def show(frame: Frame, outcome: Answer | GarError) -> None:
    """Called in the answering thread."""
    text = outcome.text if isinstance(outcome, Answer) else f"error: {outcome}"
    print(f"{frame.tag:7.2f} s  {text}", flush=True)


def main(source: str, *box: str) -> int:
    left, top, right, bottom = (int(edge) for edge in box)
    camera = cv2.VideoCapture(int(source) if source.isdecimal() else source)
    pace = 0.0 if source.isdecimal() else 1 / (camera.get(cv2.CAP_PROP_FPS) or 30)  # a camera sets its own
    frames, begin, slowest = 0, time.monotonic(), 0.0
    # One core stays with the loop: a robot has more to do than to answer.
    with Gar.load(threads=1) as gar, LiveAnswers(gar, show) as live:
        region = gar.manifest.prompt.default_region
        while True:
            due = begin + frames * pace
            time.sleep(max(0.0, due - time.monotonic()))
            read, picture = camera.read()
            if not read:
                break
            started = time.monotonic()
            mask = np.zeros(picture.shape[:2], np.bool_)
            mask[top:bottom, left:right] = True
            live.offer(Frame(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), {region: mask}, tag=started - begin))
            slowest = max(slowest, time.monotonic() - started)
            frames += 1
        print(f"{frames} frames, {live.dropped} dropped, the loop's own work {slowest * 1e3:.1f} ms at most")
    if not frames:
        print(f"error: no frame from {source!r}", file=sys.stderr)
    # A camera never ends by itself: it was unplugged.
    return 0 if frames and not source.isdecimal() else 1


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(f"usage: {sys.argv[0]} CAMERA|VIDEO LEFT TOP RIGHT BOTTOM")
    sys.exit(main(*sys.argv[1:]))
