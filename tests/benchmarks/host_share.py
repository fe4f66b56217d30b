"""The host's share of an answer: an engine of the 1B's dimensions that does nothing, so that all time is our own.

    python tests/benchmarks/host_share.py [--against OTHER/.venv/bin/python] [--busy 1] [--engine-cuts]

The engine has a static cache, as TensorRT's have; with --engine-cuts it takes pictures whole, and the host cuts none
(an older gar-edge always does). With --against, the gar-edge of another Python (an older commit's,
say) answers the same questions in the same run, in turn. Each side exports a gar-nano for its tokenizer first.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

CAPACITY = 6144  # slots of the cache
CHUNK = 512  # positions of a prompt in one run
SIZES = {"1280x720": (1280, 720), "640x480": (640, 480)}
NEW_TOKENS = 33
LAYERS, KV_HEADS, HEAD_DIM, HIDDEN, TILE_TOKENS, VOCAB = 16, 8, 64, 2048, 256, 128262  # the 1B's
TILE, MAX_TILES = 448, 16

Milliseconds = dict[str, float]


class Watch:
    """Milliseconds by part; what is timed inside another part counts for the outer one alone."""

    def __init__(self) -> None:
        self.parts: Milliseconds = {}
        self._inside = False

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        if self._inside:
            yield
            return
        self._inside, begin = True, time.perf_counter()
        try:
            yield
        finally:
            self._inside = False
            self.parts[name] = self.parts.get(name, 0.0) + (time.perf_counter() - begin) * 1e3


class NullBuffer:
    """A buffer in host memory, whose copies take what they take to pinned memory."""

    def __init__(self, watch: Watch, array: np.ndarray[Any, Any]) -> None:
        self.watch, self.array = watch, array
        self.shape, self.dtype = array.shape, array.dtype

    def rows(self, begin: int, end: int) -> NullBuffer:
        return NullBuffer(self.watch, self.array[begin:end])

    def reshape(self, *shape: int) -> NullBuffer:
        return NullBuffer(self.watch, self.array.reshape(shape))

    def write(self, host: np.ndarray[Any, Any]) -> None:
        with self.watch.part("upload"):
            self.array[...] = host

    def clear(self) -> None:
        """A GPU does that by itself."""

    def copy_from(self, other: NullBuffer) -> None:
        """A GPU does that by itself."""

    def read(self) -> np.ndarray[Any, Any]:
        return self.array


class NullSession:
    """A graph that was built for one sequence and computes nothing."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def bind(self, inputs: Mapping[str, Any], outputs: Mapping[str, NullBuffer]) -> Callable[[], None]:
        with self._watch.part("upload"):
            alive = [value.copy() if isinstance(value, np.ndarray) else value for value in inputs.values()]
        return alive.clear

    def limit(self, name: str, axis: int) -> int | None:
        sizes = {("attention_mask", 3): CAPACITY, ("inputs_embeds", 0): 1, ("inputs_embeds", 1): CHUNK}
        return sizes.get((name, axis))


class NullCutter:
    """Takes pictures, as one copy to pinned memory, and cuts nothing."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def take(self, image: np.ndarray[Any, Any]) -> NullBuffer:
        with self._watch.part("upload"):
            return NullBuffer(self._watch, image.copy())

    def cut(self, picture: NullBuffer, window: Any, tile: NullBuffer) -> None:
        """A GPU does that by itself."""


class NullBackend:
    """An engine that returns at once."""

    name = "null"
    prefill_chunk = CHUNK
    features_at_once = 4 * TILE_TOKENS

    def __init__(self, watch: Watch, cuts: bool) -> None:
        self._watch = watch
        self.cutter = NullCutter(watch) if cuts else None

    def session(self, graph: str) -> NullSession:
        return NullSession(self._watch)

    def free_memory(self) -> int:
        return 8 << 30

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NullBuffer:
        with self._watch.part("buffers"):
            return NullBuffer(self._watch, np.empty(shape, dtype))

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NullBuffer:
        with self._watch.part("buffers"):
            return NullBuffer(self._watch, np.zeros(shape, dtype))


TIMED = {
    "load_image": "reading", "load_picture": "reading", "cut_tiles": "tiles", "resize_part": "tiles",
    "cut_mask": "mask", "normalise": "upload",
}  # fmt: skip


def time_functions(watch: Watch) -> None:
    """Put a watch around the functions of these names, wherever this commit keeps and imports them."""
    ours = [module for name, module in sys.modules.items() if name.startswith("gar_edge.")]
    for module in ours:
        for name, part in TIMED.items():
            function = getattr(module, name, None)
            if function is not None:
                setattr(module, name, timed(function, part, watch))


def timed(function: Callable[..., Any], part: str, watch: Watch) -> Callable[..., Any]:
    """The function, its time counted for a part."""

    def call(*arguments: Any, **named: Any) -> Any:
        with watch.part(part):
            return function(*arguments, **named)

    return call


class Side:
    """One gar-edge over the null engine."""

    def __init__(self, folder: Path, cuts: bool) -> None:
        from gar_edge.runtime import Gar

        try:
            from gar_edge.runtime.bundle.bundle import Bundle
        except ImportError:
            from gar_edge.runtime.bundle import Bundle  # type: ignore[no-redef, attr-defined]
        self.watch = Watch()
        watch = self.watch

        class WideBundle(Bundle):
            """gar-nano's tokenizer and prompt, the 1B's dimensions."""

            def embed(self, ids: Any) -> Any:
                with watch.part("table"):
                    return TABLE[np.asarray(ids) % len(TABLE)]

        small = Bundle.open(folder)
        time_functions(watch)
        self.gar = Gar(*loaded(WideBundle(folder, widened(small.manifest)), NullBackend(watch, cuts)))

    def measure(self, size: tuple[int, int], seed: int) -> Milliseconds:
        """Milliseconds before the first token, its parts, and those of a further token."""
        from gar_edge.runtime import Options

        mask, file = question(*size, seed)
        self.watch.parts = {}
        begin = time.perf_counter()
        self.gar.open(file).describe(mask, options=Options(max_new_tokens=1))
        first = elapsed(begin)
        parts = dict(self.watch.parts)
        rest = first - sum(parts.values())
        answer = self.gar.open(file).describe(mask, options=Options(max_new_tokens=NEW_TOKENS))
        step = answer.timings_ms.decode / (len(answer.tokens) - 1)
        return {"first token": first, **parts, "prompt, sampling, text": rest, "further token": step}


def loaded(bundle: Any, backend: NullBackend) -> tuple[Any, ...]:
    """What `Gar` is made of: a pipeline, or in commits before it bundle and engine."""
    try:
        from gar_edge.runtime.generate.pipeline import Pipeline
    except ImportError:
        return bundle, backend
    return (Pipeline.of(bundle, backend),)  # type: ignore[arg-type]


TABLE = np.random.default_rng(0).standard_normal((4096, HIDDEN)).astype(np.float16)


def widened(manifest: Any) -> Any:
    """A manifest with the 1B's dimensions and caches."""
    graphs = dict(manifest.graphs)
    names = [f"{kind}_cache_{layer}" for layer in range(LAYERS) for kind in ("key", "value")]
    graphs["decoder"] = dataclasses.replace(graphs["decoder"], aliases={f"{name}_out": name for name in names})
    dimensions = dataclasses.replace(
        manifest.dimensions, tile_tokens=TILE_TOKENS, hidden=HIDDEN, vocab=VOCAB, layers=LAYERS, kv_heads=KV_HEADS,
        head_dim=HEAD_DIM, context=131072,
    )  # fmt: skip
    preprocess = dataclasses.replace(manifest.preprocess, tile=TILE, max_tiles=MAX_TILES)
    prompt = dataclasses.replace(manifest.prompt, stop_tokens=(VOCAB - 1,))  # the null engine says token 0 for ever
    return dataclasses.replace(manifest, graphs=graphs, dimensions=dimensions, preprocess=preprocess, prompt=prompt)


def question(width: int, height: int, seed: int) -> tuple[np.ndarray[Any, Any], str]:
    """A mask [H,W] of a twelfth of a smooth picture, and the picture's file."""
    from PIL import Image

    small = np.random.default_rng(seed).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    mask = np.zeros((height, width), np.bool_)
    mask[height // 3 : height * 2 // 3, width // 4 : width // 2] = True
    file = str(Path(tempfile.gettempdir()) / f"host_share_{width}.jpg")
    picture.save(file, quality=90)
    return mask, file


def elapsed(begin: float) -> float:
    """Milliseconds since."""
    return (time.perf_counter() - begin) * 1e3


def serve(folder: Path, cuts: bool) -> None:
    """Measure what standard input asks for, a JSON line each."""
    side = Side(folder, cuts)
    for line in sys.stdin:
        size, seed = json.loads(line)
        print(json.dumps(side.measure((size[0], size[1]), seed)), flush=True)


class Server:
    """A gar-edge in a process of its own."""

    def __init__(self, python: str, folder: Path, cuts: bool) -> None:
        export = [python, "-m", "gar_edge.export.cli", "--size", "nano", "--fp16", "--no-validate", "-o", str(folder)]
        own = {**os.environ, "GAR_EDGE_HOME": str(folder.parent)}  # or it would be the user's bundle exported last
        subprocess.run(export, check=True, capture_output=True, cwd=folder.parent, env=own)
        command = [python, __file__, "--serve", str(folder), *(["--engine-cuts"] if cuts else [])]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder.parent
        )

    def measure(self, size: tuple[int, int], seed: int) -> Milliseconds:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([size, seed]), file=self._process.stdin, flush=True)
        answer: Milliseconds = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        self._process.communicate()


def main(
    against: Annotated[str | None, typer.Option(help="The Python of another gar-edge.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="After one to warm up.")] = 8,
    busy: Annotated[int, typer.Option(min=0, help="Processes that keep a core each busy meanwhile.")] = 0,
    engine_cuts: Annotated[bool, typer.Option(help="The engine cuts tiles.")] = False,
    serving: Annotated[Path | None, typer.Option("--serve", hidden=True)] = None,
) -> None:
    """Print one JSON object: for each size the least and the median milliseconds of every part, and ratios of these."""
    if serving is not None:
        serve(serving, engine_cuts)
        return
    pythons = {"this": sys.executable} | ({"other": against} if against is not None else {})
    report: dict[str, Any] = {"rounds": rounds, "busy": busy, "engine_cuts": engine_cuts}
    with tempfile.TemporaryDirectory() as folder:
        servers = {name: Server(python, Path(folder) / name, engine_cuts) for name, python in pythons.items()}
        spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
        try:
            for label, size in SIZES.items():
                found: dict[str, list[Milliseconds]] = {name: [] for name in servers}
                for seed in range(rounds + 1):
                    for name, server in servers.items():
                        found[name].append(server.measure(size, seed))
                report[label] = {name: summary(times[1:]) for name, times in found.items()}
                if against is not None:
                    of = {name: report[label][name]["first token"] for name in servers}
                    report[label]["ratio"] = [round(of["other"][i] / of["this"][i], 2) for i in range(2)]
        finally:
            for process in spinning:
                process.kill()
                process.wait()
            for server in servers.values():
                server.close()
    print(json.dumps(report, indent=1))


def summary(times: list[Milliseconds]) -> dict[str, list[float]]:
    """[least, median] of every part."""
    columns = {name: [one.get(name, 0.0) for one in times] for name in times[0]}
    return {name: [round(min(values), 2), round(statistics.median(values), 2)] for name, values in columns.items()}


if __name__ == "__main__":
    typer.run(main)
