"""What is checked on a GPU, each in a process of its own: `python tests/gpu/stages.py NAME FOLDER [--dry]`.

FOLDER holds the bundles; the result is written to NAME.json there. dry: the same on the processor with gar-nano, so
that the first minute on a GPU is not spent on slips of the pen.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TILES, NEW_TOKENS, ROUNDS = 14, 128, 3  # beside the thumbnail; of an answer; after one to warm up
DRY_TILES, DRY_TOKENS = 4, 16
ANSWERS, TENSORRT_ANSWERS, DRY_ANSWERS = 200, 100, 12
CUTS = 50  # of a picture into tiles, in a row
SEED = 9300

Result = dict[str, Any]


def machine(folder: Path, dry: bool) -> Result:
    """What it is and what is installed."""
    import torch

    from gar_edge.runtime.bench.report import machine as described

    found: Result = described() | {"torch": torch.__version__, "cuda_of_torch": torch.version.cuda}
    if not dry:
        import onnxruntime

        major, minor = torch.cuda.get_device_capability()
        found["gpu"] = torch.cuda.get_device_name()
        found["compute_capability"] = f"{major}.{minor}"
        found["gpu_memory_gb"] = round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1)
        found["providers"] = onnxruntime.get_available_providers()
    return found


def replay(folder: Path, dry: bool) -> Result:
    """The kernel against torch, and its time against a copy of as many bytes; dry: the portable body against torch."""
    if dry:
        return {"distance": _portable_replay()}
    from dataclasses import asdict

    from gar_edge.export.replay_benchmark import FloatType, measure
    from gar_edge.models.sizes import Size

    found: Result = {}
    for precision in (FloatType.FP16, FloatType.FP32):
        for regions in (1, 5):
            figures = asdict(measure(Size.B1, (5, 3), regions, precision, 20, 50))
            figures["times_the_copy"] = figures["kernel"] / figures["copy"]
            found[f"{precision.value}, {regions} regions"] = figures
    return found


def cutter(folder: Path, dry: bool) -> Result:
    """Tiles of a picture cut on the GPU against the host's, and their time beside the least that must be moved.

    dry: the host's time alone.
    """
    from gar_edge.runtime.bundle.bundle import Bundle
    from gar_edge.runtime.images.preprocess import Tiles

    spec = Bundle.open(folder / ("nano-fp16" if dry else "1b-fp16")).manifest.preprocess
    found: Result = {}
    for width, height in ((640, 480), (1280, 720), (1920, 1080)):
        small = np.random.default_rng(width).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        image = small.repeat(8, axis=0).repeat(8, axis=1)
        begin = time.perf_counter()
        tiles = Tiles.of(image, spec).cut()
        one = found[f"{width}x{height}"] = {"tiles": len(tiles), "host_ms": (time.perf_counter() - begin) * 1e3}
        if not dry:
            one |= _cut_on_gpu(tiles)
    return found


def _cut_on_gpu(tiles: Any) -> Result:
    """Pixels that differ and by how much, milliseconds of taking and of cutting, and of a copy of as many bytes."""
    from gar_edge.runtime.engines.cuda.api import Cuda
    from gar_edge.runtime.engines.cuda.cutter import TileCutter
    from gar_edge.runtime.engines.cuda.memory import DeviceBuffer, Stream

    cuda = Cuda.load()
    stream = Stream(cuda, "use a smaller picture")
    cutter = TileCutter(cuda, stream)
    out = DeviceBuffer.new(stream, tiles.pixels.shape, tiles.pixels.dtype)
    rows = [out.rows(tile, tile + 1).reshape(*out.shape[1:]) for tile in range(len(tiles))]
    picture = cutter.take(tiles.image)

    def cut() -> None:
        for window, row in zip(tiles.windows, rows, strict=True):
            cutter.cut(picture, window, row)

    cut()
    apart = np.abs(out.read().astype(np.int16) - tiles.pixels)
    # Read and written once: the picture, by thumbnail and tiles, the float32 between the passes, the tiles.
    between = sum(3 * 4 * _read_rows(down) * (across.end - across.begin) for across, down in tiles.windows)
    half = (2 * tiles.image.nbytes + 2 * between + out.size) // 2
    source, target = (DeviceBuffer.new(stream, (half,), np.dtype(np.uint8)) for _ in range(2))
    captured = stream.capture(cut)
    return {
        "different": int(np.count_nonzero(apart)), "most": int(apart.max()), "pixels": apart.size,
        "take_ms": _milliseconds(stream, lambda: cutter.take(tiles.image)),
        "cut_ms": _milliseconds(stream, cut),
        "kernels_ms": _milliseconds(stream, captured),
        "copy_ms": _milliseconds(stream, lambda: target.copy_from(source)),
    }  # fmt: skip


def _read_rows(down: Any) -> int:
    from gar_edge.runtime.images.resize import blocks

    found = blocks(*down)
    return found[-1].last - found[0].first


def _milliseconds(stream: Any, work: Callable[[], object]) -> float:
    """Of one `work`, among many that the GPU does in a row."""
    work()
    stream.synchronise()
    begin = time.perf_counter()
    for _ in range(CUTS):
        work()
    stream.synchronise()
    return (time.perf_counter() - begin) * 1e3 / CUTS


def _portable_replay() -> float:
    """Relative distance of the graph's body in ONNX Runtime from torch, on random features."""
    import torch

    from gar_edge.models.checkpoint import open_checkpoint, shipped_checkpoint
    from gar_edge.models.replay import replay as in_torch
    from gar_edge.models.sizes import Size
    from gar_edge.runtime.bundle.shipped import SHIPPED
    from gar_edge.runtime.engines.telemetry import import_onnxruntime

    config = open_checkpoint(shipped_checkpoint(Size.NANO)).config
    random = np.random.default_rng(1)
    features = random.standard_normal((5, config.tile_tokens, config.text.hidden)).astype(np.float32)
    boxes = np.array([[0.1, 0.2, 0.6, 0.9]], np.float32)
    session = import_onnxruntime().InferenceSession(SHIPPED / "roi_replay.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"features": features, "grid": np.array([2, 2]), "boxes": boxes})
    wanted = in_torch(torch.from_numpy(features), (2, 2), torch.from_numpy(boxes), config.replay_spatial_scale).numpy()
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def nano(folder: Path, dry: bool) -> Result:
    """Answers of gar-nano in fp16 on the GPU against those of fp32 on the processor, token for token."""
    return _compared(folder / "nano-fp16", "onnxruntime" if dry else "cuda", DRY_ANSWERS if dry else ANSWERS)


def _compared(bundle: Path, backend: str, answers: int) -> Result:
    """How many answers are the same as fp32's on the processor."""
    from gar_edge.models.nano import exam
    from gar_edge.runtime import Gar
    from gar_edge.runtime.bundle.shipped import SHIPPED

    same = asked = 0
    begin = time.perf_counter()
    with (
        Gar.load(bundle, backend=backend) as there,
        Gar.load(SHIPPED, backend="onnxruntime") as here,
    ):
        for index in range(1000):
            questions = exam.scene(SEED, index)
            scenes = [gar.open(questions[0].scene.image) for gar in (there, here)]
            for question in questions[: answers - asked]:
                found, wanted = (scene.ask(question.turn.question, question.masks).tokens for scene in scenes)
                same, asked = same + (found == wanted), asked + 1
            if asked == answers:
                break
    return {"answers": asked, "same": same, "seconds": round(time.perf_counter() - begin, 1)}


def fp16(folder: Path, dry: bool) -> Result:
    """The random 1B in fp16 through the runtime."""
    return _answers(folder / ("nano-fp16" if dry else "1b-fp16"), dry, "onnxruntime" if dry else "cuda")


def int4(folder: Path, dry: bool) -> Result:
    """The random 1B in int4 through the runtime."""
    return _answers(folder / ("nano-int4" if dry else "1b-int4"), dry, "onnxruntime" if dry else "cuda")


def _answers(bundle: Path, dry: bool, backend: str) -> Result:
    """First token, decode and what of the first token was the host's own, medians of some rounds."""
    from gar_edge.runtime.bench.stages import Contestant, Setting

    tiles, tokens = (DRY_TILES, DRY_TOKENS) if dry else (TILES, NEW_TOKENS)
    setting = Setting(tiles, (1,), tokens, backend, "standard", 0)
    contestant = Contestant(bundle, setting, lambda step: None)
    contestant.round()
    contestant.samples.values.clear()
    for _ in range(ROUNDS):
        contestant.round()
    medians = {name: statistics.median(values) for name, values in contestant.samples.values.items()}
    engine = sum(medians[f"{stage}.ms"] for stage in ("encode", "replay", "prefill"))
    return {
        "first_token_ms": medians["first_token_ms"],
        "decode_tokens_per_s": medians["decode.tokens_per_s"],
        "encode_ms": medians["encode.ms"],
        "prefill_ms": medians["prefill.ms"],
        "host_share": 1 - engine / medians["first_token_ms"],
        "prompt_tokens": contestant.prompt_tokens,
        "tiles": tiles + 1,
        "new_tokens": tokens,
        "load_ms": contestant.load_ms,
    }


def pytorch(folder: Path, dry: bool) -> Result:
    """The same work in PyTorch: fp16 with scaled dot product attention; dry: float32 on the processor."""
    import torch
    from peer import Peer

    measured = json.loads((folder / "fp16.json").read_text(encoding="utf-8"))
    device, dtype = ("cpu", torch.float32) if dry else ("cuda", torch.float16)
    peer = Peer("nano" if dry else "1b", device, dtype)
    rounds = [
        peer.round(measured["tiles"], measured["prompt_tokens"], measured["new_tokens"]) for _ in range(ROUNDS + 1)
    ]
    first, rate = (statistics.median(values) for values in zip(*rounds[1:], strict=True))
    return {"first_token_ms": first, "decode_tokens_per_s": rate, "version": torch.__version__}


def tensorrt(folder: Path, dry: bool) -> Result:
    """gar-nano by TensorRT, built here: token for token, and its times; `skipped` where there is none.

    dry: on the fakes of the tests, whose times are nothing.
    """
    if dry:
        _fake_tensorrt()
    from gar_edge.runtime.bundle.bundle import Bundle
    from gar_edge.runtime.engines.cuda.api import Cuda
    from gar_edge.runtime.engines.tensorrt.engines import build_engines, here, suited
    from gar_edge.runtime.engines.tensorrt.installed import TENSORRT, load_library
    from gar_edge.runtime.engines.tensorrt.plan import Limits
    from gar_edge.runtime.engines.tensorrt.roi_replay import Replay
    from gar_edge.runtime.errors import GarBackendError

    try:
        library, cuda = load_library(TENSORRT), Cuda.load()
    except GarBackendError as error:
        return {"skipped": str(error)}
    bundle = Bundle.open(folder / "nano-fp16")
    limits, machine = Limits.of(suited(bundle, library)), here(library, cuda)
    engines = build_engines(bundle, library, machine, limits, Replay(), True, cuda, lambda step: None)
    seconds = {engine.record.recipe.graph: engine.record.build_seconds for engine in engines}
    return {
        "title": library.title,
        "build_seconds": seconds,
        **_compared(bundle.folder, TENSORRT, TENSORRT_ANSWERS if not dry else DRY_ANSWERS),
        **_answers(bundle.folder, dry, TENSORRT),
    }


def _fake_tensorrt() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from fakes.cuda import FakeCuda
    from fakes.cuda_driver import FakeDriver
    from fakes.tensorrt import FakeTensorRt

    cuda = FakeCuda()
    sys.modules |= {
        "tensorrt": FakeTensorRt(cuda), "cuda.bindings.runtime": cuda, "cuda.bindings.driver": FakeDriver(cuda)
    }  # fmt: skip


STAGES: dict[str, Callable[[Path, bool], Result]] = {
    "machine": machine, "replay": replay, "cutter": cutter, "nano": nano, "fp16": fp16, "pytorch": pytorch,
    "int4": int4, "tensorrt": tensorrt,
}  # fmt: skip


def main(name: str, folder: Path, dry: bool) -> None:
    """Run one and write its result."""
    found = STAGES[name](folder, dry)
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), "--dry" in sys.argv[3:])
