"""One processor's part of a campaign, with the runtime alone: `python answers.py BUNDLE QUESTIONS COUNT TILES OUT`.

QUESTIONS: a folder of `questions.json` and pictures, from `drawing.py`. Into the folder OUT: `answers.json` with the
tokens of the first COUNT answers, seconds, and whether integer products saturate by themselves; `features.npy` of the
encoder over the first picture's first TILES. Answers are asked for one by one: batches would depend on time.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from gar_edge.runtime import Gar
from gar_edge.runtime.engines.onnxruntime.exact_products import products_saturate
from gar_edge.runtime.engines.telemetry import import_onnxruntime
from gar_edge.runtime.images.preprocess import cut_mask, cut_tiles


def main(bundle: Path, questions: Path, count: int, tiles: int, out: Path) -> None:
    asked = json.loads((questions / "questions.json").read_text(encoding="utf-8"))
    begin = time.perf_counter()
    gar = Gar.load(bundle, backend="onnxruntime", threads=2)
    loaded = time.perf_counter()
    tokens, scene, shown = [], None, None
    for one in asked[:count]:
        if one["picture"] != shown:
            shown = one["picture"]
            scene = gar.open(questions / shown)
        assert scene is not None
        masks = {int(number): questions / mask for number, mask in one["masks"].items()}
        tokens.append(scene.ask(one["question"], masks).tokens)
    seconds = time.perf_counter() - loaded
    np.save(out / "features.npy", features(gar, questions / asked[0]["picture"], tiles))
    report = {"tokens": tokens, "load_s": loaded - begin, "answers_s": seconds}
    report["saturate"] = products_saturate(import_onnxruntime())
    (out / "answers.json").write_text(json.dumps(report), encoding="utf-8")


def features(gar: Gar, picture: Path, tiles: int) -> np.ndarray:
    """The encoder's features [T,P,C] of a picture's first tiles, all of it marked."""
    image, spec = gar.open(picture).image, gar.manifest.preprocess
    cut = cut_tiles(image, spec)
    marked = cut_mask({0: np.ones(image.shape[:2], np.bool_)}, cut.grid, spec, len(gar.manifest.prompt.regions))
    return np.array(gar.pipeline.vision.encode(cut.pixels[:tiles], marked[:tiles]).read())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
