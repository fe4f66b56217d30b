"""COCO data sets of drawn scenes, whose regions are run lengths of exact masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from gar_edge.models.nano.scenes import draw_scene


def drawn_coco(folder: Path, regions: int, *, seed: int = 1) -> Path:
    """Write so many annotations of as many scenes as they need, and `annotations.json` about them."""
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    while len(annotations) < regions:
        number = len(images)
        scene = draw_scene(np.random.default_rng((seed, number)))
        name = f"{number:06d}.png"
        Image.fromarray(scene.image).save(folder / name, compress_level=1)
        height, width = scene.image.shape[:2]
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for mask in scene.masks[: regions - len(annotations)]:
            packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
            segmentation = {"size": [height, width], "counts": packed["counts"].decode()}
            rows, columns = np.nonzero(mask)
            left, upper = int(columns.min()), int(rows.min())
            box = [left, upper, int(columns.max()) + 1 - left, int(rows.max()) + 1 - upper]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": segmentation,
                    "bbox": box,
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                }
            )
    path = folder / "annotations.json"
    categories = [{"id": 1, "name": "thing"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path
