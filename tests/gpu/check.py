"""Evidence from a GPU in one command: `make gpu-check`, or `make gpu-check DRY=--dry` on a processor.

Replay kernel, gar-nano token by token, a random 1B in fp16 and int4 through ONNX Runtime's CUDA provider, the same
work in PyTorch beside it, and gar-nano by TensorRT where that is installed. Every stage is a process of its own, with a
limit; one that fails is told and leaves the others alone. report.json and page.md say what was found; exit code 1 where
a stage failed or a target was missed.

The bundles are exported first, on the processor, while the stages run that need none of its time.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from page import missed, page

HERE = Path(__file__).parent
FIRST = ("machine", "replay", "nano")  # whose times are the GPU's alone, or nobody's
TIMED = ("cutter", "fp16", "pytorch", "int4")  # with the processor to themselves
LAST = "tensorrt"  # whose builds may take all the time that is left
SHARE = 0.6  # of the time that exporting may take


class Exports:
    """Bundles that are written one after the other by a process of their own."""

    def __init__(self, folder: Path, dry: bool) -> None:
        quick = ["--no-validate", "--force"]
        size = ["nano"] if dry else ["1b", "--random-weights"]
        name = "nano" if dry else "1b"
        wanted = {"nano-fp16": ["nano", "--fp16", "--compat"], f"{name}-fp16": [*size, "--fp16"]}
        wanted[f"{name}-int4"] = [*size, "--int4", "--calib-samples", "1", "--keep-float", "none"]
        self.folder = folder
        self._commands = [
            [sys.executable, "-m", "gar_edge.export.cli", "--size", *options, *quick, "-o", str(folder / bundle)]
            for bundle, options in wanted.items()
            if not (folder / bundle / "gar.json").is_file()
        ]
        self._running: subprocess.Popen[bytes] | None = None

    def go_on(self) -> bool:
        """Start what is next; whether there is still something to wait for. `SystemExit` where an export fails."""
        if self._running is not None:
            code = self._running.poll()
            if code is None:
                return True
            self._running = None
            if code:
                raise SystemExit(f"an export failed; {self.folder / 'exports.log'} says why")
        if not self._commands:
            return False
        with (self.folder / "exports.log").open("ab") as log:
            self._running = subprocess.Popen(self._commands.pop(0), stdout=log, stderr=log, start_new_session=True)
        return True

    def wait(self, until: float, bundle: str | None = None) -> bool:
        """Until a bundle, or all of them, are there; whether they are in time."""
        while self.go_on():
            if bundle is not None and (self.folder / bundle / "gar.json").is_file():
                return True
            if time.monotonic() > until:
                return False
            time.sleep(0.2)
        return True

    def stop(self) -> None:
        """End what is being written; it leaves nothing."""
        self._commands.clear()
        if self._running is not None and self._running.poll() is None:
            os.killpg(self._running.pid, signal.SIGINT)
            self._running.wait()


def run_stage(name: str, folder: Path, dry: bool, seconds: float) -> str | None:
    """Run one; why it failed, in a line, or None."""
    command = [sys.executable, str(HERE / "stages.py"), name, str(folder), *(["--dry"] if dry else [])]
    (folder / f"{name}.json").unlink(missing_ok=True)
    if seconds <= 0:
        return "no time was left"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return f"not done within {seconds:.0f} s"
    (folder / f"{name}.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    lines = done.stderr.strip().splitlines()
    return None if done.returncode == 0 else (lines[-1] if lines else f"exit code {done.returncode}")


def main(
    out: Annotated[Path, typer.Option(help="Folder of bundles and figures; bundles that are there are kept.")] = Path(
        "build/gpu-check"
    ),
    seconds: Annotated[float, typer.Option(min=1, help="For everything.")] = 480,
    dry: Annotated[bool, typer.Option("--dry", help="On the processor, with gar-nano.")] = False,
) -> None:
    """Write report.json and page.md, and print the page."""
    begin = time.monotonic()
    end = begin + seconds
    out.mkdir(parents=True, exist_ok=True)
    exports = Exports(out, dry)
    failed: dict[str, str] = {}

    def stage(name: str) -> None:
        why = run_stage(name, out, dry, end - time.monotonic())
        if why is not None:
            failed[name] = why

    try:
        exports.wait(begin + SHARE * seconds, "nano-fp16")
        for name in FIRST:
            stage(name)
            exports.go_on()
        if not exports.wait(begin + SHARE * seconds):
            exports.stop()
        for name in TIMED:
            bundle = out / f"{'nano' if dry else '1b'}-{'int4' if name == 'int4' else 'fp16'}"
            if not (bundle / "gar.json").is_file():
                failed[name] = f"{bundle} was not exported in time"
            else:
                stage(name)
        stage(LAST)
    finally:
        exports.stop()
    found: dict[str, Any] = {
        name: json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        for name in (*FIRST, *TIMED, LAST)
        if name not in failed
    }
    report = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(), "dry": dry,
        "seconds": round(time.monotonic() - begin, 1), "stages": found, "failed": failed,
    }  # fmt: skip
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    text = page(report)
    (out / "page.md").write_text(text, encoding="utf-8")
    print(text, end="")
    raise typer.Exit(bool(failed or missed(report)))


if __name__ == "__main__":
    typer.run(main)
