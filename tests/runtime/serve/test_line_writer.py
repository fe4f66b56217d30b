"""The log's stream may be slow, full or gone."""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
import time

from gar_edge.runtime.serve.line_writer import LineWriter


def test_lines_come_in_order() -> None:
    stream = io.StringIO()
    with LineWriter(stream) as write:
        for number in range(1000):
            write(str(number))
    assert stream.getvalue() == "".join(f"{number}\n" for number in range(1000))


def test_nobody_waits_for_a_pipe_that_is_full() -> None:
    """65 KiB fit into the pipe; what is beyond waits, then is left out, and that is told."""
    reading, writing = os.pipe()
    line = "x" * 1000
    found: list[str] = []
    with os.fdopen(writing, "w") as stream:
        writer = LineWriter(stream, most=50)
        begin = time.monotonic()
        with writer as write:
            for _ in range(500):
                write(line)
                time.sleep(0.0005)
            assert time.monotonic() - begin < 5

            def read() -> None:
                with os.fdopen(reading) as pipe:
                    found.extend(pipe.read().splitlines())

            reader = threading.Thread(target=read)
            reader.start()
    reader.join(5)
    told = [json.loads(one) for one in found if one != line]
    assert sum(one["count"] for one in told) + found.count(line) == 500
    assert found.count(line) > 50


def test_a_stream_that_is_gone_ends_the_log_alone() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    with LineWriter(stream) as write:
        for _ in range(100):
            write("x" * 1000)
            time.sleep(0.001)
    with contextlib.suppress(OSError):
        stream.close()
