"""Lines to a stream that may be slow, full or gone: whoever writes them never waits for it."""

from __future__ import annotations

import json
import threading
from collections import deque
from typing import TextIO

MOST = 10_000  # lines that wait; beyond it lines are left out, and counted


class LineWriter:
    """A thread of its own writes; used as a context, it is given a moment for the rest at the end."""

    def __init__(self, stream: TextIO, *, most: int = MOST) -> None:
        self._stream = stream
        self._most = most
        self._lines: deque[str] = deque()
        self._left_out = 0
        self._changed = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._write, name="gar-serve log", daemon=True)

    def __enter__(self) -> LineWriter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._over = True
            self._changed.notify()
        self._thread.join(2.0)  # a stream that takes nothing must not keep the process

    def __call__(self, line: str) -> None:
        """Have a line written."""
        with self._changed:
            if len(self._lines) >= self._most:
                self._left_out += 1
                return
            self._lines.append(line)
            self._changed.notify()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._over)
                lines, self._lines = list(self._lines), deque()
                left_out, self._left_out = self._left_out, 0
                over = self._over and not lines
            if over:
                return
            if left_out:
                lines.append(json.dumps({"event": "lines left out", "count": left_out}))
            try:
                self._stream.write("".join(f"{line}\n" for line in lines))
                self._stream.flush()
            except (OSError, ValueError):  # nobody reads any more: the server goes on without a log
                return
