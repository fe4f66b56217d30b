"""Pictures and regions written as users have them, and what a calibration sample must be."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gar_edge.calibration.samples import Sample, SampleSet

PROMPTS = 5
REGION = np.array([[0, 1, 1, 0, 0], [0, 1, 0, 0, 1]], bool)  # [2,5]
COUNTS = [2, 3, 4, 1]  # its runs down the columns: 00 | 11 1|0 00 0|1
TEXT = "234N"  # the fourth is written as 1 - 3 = -2: 0b11110 = 30, and chr(48 + 30) is "N"


def slow_counts(mask: np.ndarray) -> list[int]:
    """COCO's runs, pixel by pixel."""
    height, width = mask.shape
    counts, current = [0], False
    for x in range(width):
        for y in range(height):
            if bool(mask[y, x]) != current:
                counts.append(0)
                current = not current
            counts[-1] += 1
    return counts


def slow_text(counts: list[int]) -> str:
    """As pycocotools writes them (rleToString in maskApi.c)."""
    characters = []
    for i, count in enumerate(counts):
        x = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            c = x & 0x1F
            x >>= 5
            more = x != -1 if c & 0x10 else x != 0
            characters.append(chr((c | 0x20 if more else c) + 48))
    return "".join(characters)


def rle(mask: np.ndarray, compressed: bool = True) -> dict[str, Any]:
    counts = slow_counts(mask)
    return {"size": list(mask.shape), "counts": slow_text(counts) if compressed else counts}


def square(left: int, upper: int, side: int = 6, width: int = 40, height: int = 30) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[upper : upper + side, left : left + side] = True
    return mask


def paint(path: Path, shade: int = 90, width: int = 40, height: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (shade, 50, 50)).save(path)


def save_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def write(path: Path, data: Any) -> None:
    path.write_text(data if isinstance(data, str) else json.dumps(data))


def check(sample: Sample, prompts: int = PROMPTS) -> None:
    """What a prompt and the runtime ask of a sample."""
    assert sample.image.dtype == np.uint8
    assert sample.image.ndim == 3
    assert 1 <= len(sample.masks) <= prompts
    assert all(0 <= number < prompts for number in sample.masks)
    for mask in sample.masks.values():
        assert mask.dtype == np.bool_
        assert mask.shape == sample.image.shape[:2]
        assert mask.any()
    if sample.question is None:
        assert len(sample.masks) == 1
    else:
        assert set(re.findall(r"<Prompt\d+>", sample.question)) == {f"<Prompt{number}>" for number in sample.masks}
        assert "{" not in sample.question


def same(first: SampleSet, second: SampleSet) -> bool:
    return all(
        a is not None
        and b is not None
        and (a.name, a.question, list(a.masks)) == (b.name, b.question, list(b.masks))
        and np.array_equal(a.image, b.image)
        and all(np.array_equal(a.masks[number], b.masks[number]) for number in a.masks)
        for a, b in itertools.zip_longest(first, second)
    )
