"""Regions as people and robots give them, and the masks they become.

| given | as |
|---|---|
| mask image, [H,W] array | a path, a Pillow image, an array; `from_labels` for one that numbers several instances |
| COCO run-length encoding | `Runs`, or `from_rle` at once |
| outlines (COCO, labelme) | `Polygons`, or `from_polygons` at once |
| box, points, scribble | `Box`, `Points`, `Scribble`: cues, which a segmenter turns into a mask of the picture |

`find_mask` takes all of them, and so do `Scene.describe`, `ask` and `stream`. The segmenter is GrabCut unless another
is given: `box_mask` takes the box itself, `Sam` runs a Segment-Anything pair of ONNX graphs.
"""

from __future__ import annotations

from gar_edge.runtime.regions.cues import Box, Cue, Marks, Points, Scribble
from gar_edge.runtime.regions.find import Segmenter, box_mask, find_mask
from gar_edge.runtime.regions.kinds import RegionLike
from gar_edge.runtime.regions.labels import from_labels
from gar_edge.runtime.regions.polygons import Polygons, from_polygons
from gar_edge.runtime.regions.rle import Runs, from_rle
from gar_edge.runtime.regions.segmenters.grabcut import grabcut
from gar_edge.runtime.regions.segmenters.sam import Sam

__all__ = [
    "Box",
    "Cue",
    "Marks",
    "Mask",
    "Points",
    "Polygons",
    "RegionLike",
    "Runs",
    "Sam",
    "Scribble",
    "Segmenter",
    "box_mask",
    "find_mask",
    "from_labels",
    "from_polygons",
    "from_rle",
    "grabcut",
]
