"""Mask images on disk, and label images, whose pixel values number several instances."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.images.loading import source_name
from gar_edge.runtime.images.mask_images import MaskLike, load_labels, load_mask
from gar_edge.runtime.images.shape import Mask
from gar_edge.runtime.images.values import distinct

_MOST_LABELS = 1000  # more are a photograph, not labels
_VOID = 255  # in VOC-style label images: the rims of objects, and what nobody could name


@dataclass(frozen=True)
class MaskFile:
    """A mask image's file, or one instance of a label image's: its path, or its bytes."""

    file: str | Path | bytes
    label: int | None = None

    def draw(self, width: int, height: int) -> Mask:
        """The mask at its own size; `GarMaskError` names the file."""
        try:
            return load_mask(self.file) if self.label is None else from_label(self.file, self.label)
        except GarMaskError as error:
            name = source_name(self.file, "mask")
            raise GarMaskError(f"{name}: {str(error).removeprefix(f'{name}: ')}") from None


def from_labels(labels: MaskLike) -> dict[int, Mask]:
    """Every instance of a label image, in the order of the labels: label -> bool [H,W]. 0 is the background.

    Takes what `load_labels` takes: palette and grey images of any depth, panoptic ones, arrays. 255 beside lower labels
    is left out as VOC's void, with a warning. `GarMaskError` for nothing but background, and for more labels than
    anyone numbers.
    """
    values = load_labels(labels)
    found = [int(label) for label in distinct(values) if label != 0]
    if len(found) > 1 and found[-1] == _VOID:
        name = source_name(labels, "label image")
        warnings.warn(
            f"{name}: label {_VOID} is left out, beside lower ones it is void; #{_VOID} names it", stacklevel=2
        )
        found = found[:-1]
    if not found:
        raise GarMaskError("no label is set: all pixels are 0, the background")
    if len(found) > _MOST_LABELS:
        raise GarMaskError(f"{len(found)} values, over {_MOST_LABELS}: a photograph, not labels")
    return {label: values == label for label in found}


def from_label(labels: MaskLike, label: int) -> Mask:
    """One instance of a label image as bool [H,W]; `GarMaskError` where no pixel has this label."""
    mask: Mask = load_labels(labels) == label
    if not mask.any():
        raise GarMaskError(f"no pixel has the label {label}")
    return mask
