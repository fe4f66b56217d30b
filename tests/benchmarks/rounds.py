"""One side of a comparison in a process of its own: it is asked for rounds of the same work by lines of JSON.

So no side pays for another's imports, each may live in a Python environment of its own (this module needs nothing but
Python), and a side's peak memory is its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType


@dataclass(frozen=True)
class Work:
    """What one round asks for: tiles to encode (none: 0), prompt tokens, and decode steps after the prompt."""

    tiles: int
    tokens: int
    steps: int


@dataclass(frozen=True)
class Speed:
    """What one round came to: tokens a second of the prompt and after it, and tiles where the side has an encoder."""

    prefill: float
    decode: float
    encode: float | None = None


@dataclass(frozen=True)
class Reply:
    speed: Speed
    version: str
    peak: int  # bytes that were resident at once, since the process began


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def answer(load: Callable[[], tuple[str, Callable[[Work], Speed]]]) -> None:
    """In the side's process: load the model, then do a round for every line of standard input, until it ends.

    load: makes the side's version, in words, and the function that does a round. What libraries print goes to the
    errors' stream, for standard output carries the replies.
    """
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)
        version, work_through = load()
        for line in sys.stdin:
            reply = Reply(work_through(Work(**json.loads(line))), version, _peak())
            print(json.dumps(asdict(reply)), file=replies, flush=True)


def _peak() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM:"))


class Side:
    """A side's process, as the one who compares sees it."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self._process = subprocess.Popen([*command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Side:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def round(self, work: Work) -> Reply:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # the missing reply tells
            print(json.dumps(asdict(work)), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended before its round did; its messages are above.")
        found = json.loads(line)
        return Reply(Speed(**found["speed"]), found["version"], found["peak"])
