"""What Python hands over as a region, beside this package's own types: taken where the meaning is certain.

None of the libraries is imported: their objects are known by their types' names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.files.fields import Field
from gar_edge.runtime.regions.coco import read_segmentation
from gar_edge.runtime.regions.coordinates import plain
from gar_edge.runtime.regions.cues import Box, Points, Scribble
from gar_edge.runtime.regions.files import in_folder, read_region
from gar_edge.runtime.regions.polygons import Polygons

if TYPE_CHECKING:
    from gar_edge.runtime.regions.kinds import RegionLike


def understood(region: Any) -> RegionLike:
    """The region as one of this package's types; `GarMaskError` names a type whose meaning is not certain.

    Takes arrays and tensors [H,W], also [1,H,W]; an object of a region file, such as a run-length encoding, with bytes
    and arrays as pycocotools has them; COCO's annotations and what SAM's mask generator returns;
    `supervision.Detections` and Ultralytics' `Results`, `Masks` and `Boxes` of one.
    """
    if isinstance(region, (str, bytes, Image.Image, Box, Points, Scribble)) or callable(getattr(region, "draw", None)):
        return region
    if isinstance(region, os.PathLike):
        return Path(region)
    if isinstance(region, np.ndarray):
        return _plane(region)
    if isinstance(region, Mapping):
        return _object(region)
    library = type(region).__module__.partition(".")[0]
    if library == "torch":
        return _plane(_tensor(region))
    if library == "supervision" and hasattr(region, "xyxy"):
        return _detection(region)
    if library == "ultralytics" and (hasattr(region, "orig_shape") or hasattr(region, "boxes")):
        return _result(region)
    raise GarMaskError(
        f"a region cannot be {_type(region)}; give a mask (path, Pillow image, array [H, W]), Box(left, upper, right, "
        "lower), Points, Polygons, or a run-length encoding"
    )


def _object(region: Mapping[Any, Any]) -> RegionLike:
    """An object of a region file, or one with a `segmentation`: an array, run lengths or outlines."""
    segmentation = region.get("segmentation")
    if isinstance(segmentation, np.ndarray):
        return _plane(segmentation)
    if segmentation is not None:
        return read_segmentation(Field("region", plain(segmentation), "segmentation"), None)
    return read_region(Field("region", plain(dict(region))), in_folder(Path()))


def _plane(array: NDArray[Any]) -> NDArray[Any]:
    """[H,W] of one mask; leading axes of length 1 are dropped."""
    while array.ndim > 2 and array.shape[0] == 1 and array.shape[-1] != 1:
        array = array[0]
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4):
        raise GarMaskError(
            f"an array of {array.shape[0]} masks, {list(array.shape)}; give one of them, [height, width]"
        )
    return array


def _tensor(tensor: Any) -> NDArray[Any]:
    """A torch tensor's values, from whatever device and precision."""
    try:
        plain_tensor = tensor.detach().cpu()
        if plain_tensor.is_floating_point():
            plain_tensor = plain_tensor.float()  # NumPy has no bfloat16
        return np.asarray(plain_tensor.numpy())
    except (AttributeError, RuntimeError, TypeError) as problem:
        raise GarMaskError(f"{_type(tensor)} cannot be read ({' '.join(str(problem).split())})") from None


def _detection(detections: Any) -> RegionLike:
    """The one detection's mask, or its box."""
    _one(detections, len(detections.xyxy))
    masks = getattr(detections, "mask", None)
    if masks is not None:
        return _plane(np.asarray(masks[0] if not isinstance(masks, np.ndarray) else masks))
    return _box(detections.xyxy, None)


def _result(result: Any) -> RegionLike:
    """The one result's outlines, in the original picture's pixels, or its box: `masks.data` is letterboxed."""
    holder = result
    for part in ("masks", "boxes"):
        if getattr(result, part, None) is not None:
            holder = getattr(result, part)
            break
    _one(result, len(holder))
    height, width = (int(side) for side in getattr(holder, "orig_shape", None) or result.orig_shape)
    if hasattr(holder, "xy"):
        return Polygons([np.asarray(outline) for outline in holder.xy], (width, height), fractions=False)
    return _box(holder.xyxy, (width, height))


def _box(corners: Any, size: tuple[int, int] | None) -> Box:
    array = _tensor(corners) if type(corners).__module__.startswith("torch") else np.asarray(corners)
    x1, y1, x2, y2 = array.reshape(-1, 4)[0].astype(float).tolist()
    return Box(x1, y1, x2, y2, fractions=False, size=size)


def _one(region: Any, count: int) -> None:
    if count != 1:
        raise GarMaskError(f"{_type(region)} holds {count} regions; give one of them, e.g. detections[0]")


def _type(region: Any) -> str:
    kind = type(region)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{name} of {len(region)}" if isinstance(region, (list, tuple)) else name
