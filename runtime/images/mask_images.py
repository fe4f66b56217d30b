"""Masks, labels and drawings as arrays, from files, Pillow images or NumPy.

A mask has two values: zero (black) or transparent is the ground, all else the region. What has more values is read only
where there is no doubt (`soft_edged`), with a warning, and refused otherwise. docs/regions.md has the rules.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.images.loading import ImageLike, converted, decoded, source_name
from gar_edge.runtime.images.shape import Mask
from gar_edge.runtime.images.values import distinct, few_areas, one_colour, soft_edged

MaskLike = ImageLike

NEARLY_ALL = 0.95  # of the picture: a mask of more is taken for one without a ground
_LOSSY = frozenset(("JPEG", "MPO", "AVIF", "HEIF", "HEIC"))
_MAYBE_LOSSY = frozenset(("WEBP", "JPEG2000"))  # lossless where they hold two values
_FULL, _FULL_16 = 255, 65535  # white, at 8 and 16 bit
_OPAQUE = 255
_SHOWN = 4  # values that an error lists


@dataclass(frozen=True)
class _Source:
    """What is read: its name, and the format whose compression altered its values, if one did."""

    name: str
    lossy: str | None = None
    labels: NDArray[np.generic] | None = None  # of a palette: what FILE#LABEL takes

    def warn(self, text: str) -> None:
        warnings.warn(f"{self.name}: {text}", stacklevel=5)

    def wrong(self, text: str) -> GarMaskError:
        return GarMaskError(f"{self.name}: {text}")


def load_mask(mask: MaskLike) -> Mask:
    """A region as bool [H,W]: true where the mask is neither zero (black) nor transparent.

    Takes a path, a file's bytes, a Pillow image or an array ([H,W] of bool or numbers, or [H,W,1]). Where a mask has a
    soft edge or lossy compression, what reaches half is taken, with a warning. `GarMaskError` for what has more values
    than a mask, for a mask that covers nearly everything (bool arrays may), and otherwise.
    """
    if isinstance(mask, np.ndarray):
        return _mask_array(mask)
    picture, _ = decoded(mask, GarMaskError, "mask")
    labels = distinct(np.asarray(picture)) if picture.mode == "P" else None
    source = _Source(source_name(mask, "mask"), _compression(mask, picture), labels)
    clear = picture.mode in ("1", "L") and "transparency" in picture.info  # one grey stands for transparent
    if not clear and (picture.mode in ("1", "L", "I", "F") or picture.mode.startswith("I;16")):
        values = np.asarray(picture)
        found = _mask_array(values) if picture.mode == "F" else _region(values, source)
    else:
        found = _coloured(np.asarray(converted(picture, "RGBA", GarMaskError, source.name)), source)
    return _with_ground(found, source)


def load_labels(labels: MaskLike) -> NDArray[np.int64]:
    """A label image as int64 [H,W], whose values number instances; 0 is the background.

    Palette indices, grey values, or the numbers of colours as panoptic images have them: R + 256 G + 65536 B; what is
    transparent is background. Takes a path, a Pillow image or an array (whole numbers [H,W], uint8 [H,W,3]).
    `GarMaskError` for lossy compression, which alters numbers, and for anything else.
    """
    if isinstance(labels, np.ndarray):
        if labels.ndim == 3 and labels.shape[2] == 3 and labels.dtype == np.uint8 and 0 not in labels.shape:
            return _numbers(labels.astype(np.uint8))
        if labels.ndim != 2 or 0 in labels.shape or labels.dtype.kind not in "bui":
            raise GarMaskError(
                f"label array must be [height, width] of whole numbers, not {list(labels.shape)} {labels.dtype}"
            )
        return labels.astype(np.int64)
    picture, _ = decoded(labels, GarMaskError, "label image")
    name = source_name(labels, "label image")
    if (lossy := _compression(labels, picture)) is not None:
        raise GarMaskError(f"{name}: {lossy}'s lossy compression alters the numbers of labels; save it as PNG")
    if picture.mode in ("1", "L", "P", "I") or picture.mode.startswith("I;16"):
        return np.asarray(picture).astype(np.int64)
    if picture.mode == "F":
        raise GarMaskError(f"{name}: has floating-point pixels, where whole numbers number instances")
    colours = np.asarray(converted(picture, "RGBA", GarMaskError, name))
    grey = picture.mode == "LA"
    values = colours[..., 0].astype(np.int64) if grey else _numbers(colours)
    return np.where(colours[..., 3] == 0, 0, values)


def load_colours(image: ImageLike) -> NDArray[np.uint8]:
    """A drawing as RGBA uint8 [H,W,4]; arrays are RGB or RGBA uint8. `GarMaskError` otherwise."""
    if not isinstance(image, np.ndarray):
        name = source_name(image, "scribble")
        picture, _ = decoded(image, GarMaskError, "scribble")
        if (lossy := _compression(image, picture)) is not None:
            _Source(name).warn(f"{lossy}'s lossy compression blurs strokes; save it as PNG")
        return np.asarray(converted(picture, "RGBA", GarMaskError, name))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (3, 4) or 0 in image.shape:
        raise GarMaskError(
            f"scribble array must be uint8 [height, width, 3 or 4], not {list(image.shape)} {image.dtype}"
        )
    colours = np.full((*image.shape[:2], 4), _OPAQUE, np.uint8)
    colours[..., : image.shape[2]] = image
    return colours


def _compression(source: object, picture: Image.Image) -> str | None:
    """The format whose lossy compression has altered the pixels, as far as that can be told."""
    form = picture.format
    if form == "TIFF" and picture.info.get("compression") in ("jpeg", "tiff_jpeg", "webp"):
        return "JPEG"
    if form == "MPO":
        return "JPEG"
    if form in _LOSSY:
        return form
    if form not in _MAYBE_LOSSY or (form == "WEBP" and _is_vp8l(source)):
        return None
    return form if len(distinct(np.asarray(picture.convert("L")))) > 2 else None


def _is_vp8l(source: object) -> bool:
    """Whether a WebP file is of the lossless kind (RIFF chunks: four letters, length, padded to even)."""
    if not isinstance(source, (str, Path, bytes)):
        return False
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    at = 12
    while at + 8 <= len(data):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if kind in (b"VP8 ", b"VP8L"):
            return kind == b"VP8L"
        at += 8 + (16 if kind == b"ANMF" else length + length % 2)  # a frame's chunks follow its head of 16 bytes
    return False


def _mask_array(array: NDArray[np.generic]) -> Mask:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "buif":
        raise GarMaskError(
            f"mask array must be [height, width] of bool or numbers, not {list(array.shape)} {array.dtype}"
        )
    if array.dtype.kind == "b":
        return array.astype(np.bool_)
    source = _Source("mask array")
    if array.dtype.kind == "f":
        marked = array[array != 0]
        if not np.isfinite(marked).all() or (marked != marked[:1]).any():
            raise GarMaskError("mask array holds scores or logits, not a mask; compare them with a threshold first")
        return _with_ground(array != 0, source)
    return _with_ground(_region(array, source), source)


def _region(plane: NDArray[np.generic], source: _Source) -> Mask:
    """Of a plane [H,W] of whole numbers, what is not ground."""
    values = plane.astype(np.int64)
    full = _FULL if values.max() <= _FULL else _FULL_16
    found = distinct(values)
    if source.lossy is not None:
        if not soft_edged(values, full):
            raise source.wrong(
                f"{source.lossy}'s lossy compression left no clear black and white; save the mask as PNG"
            )
        source.warn(f"{source.lossy}'s lossy compression puts stray pixels into a mask: taken is what reaches half; "
                    "save it as PNG")  # fmt: skip
        return values >= full / 2
    if len(found) == 1 or (len(found) == 2 and 0 in found):
        return values != 0
    if found[0] >= 0 and found[-1] <= full and soft_edged(values, full) and few_areas(values):
        source.warn(f"has {len(found)} values from {found[0]} to {found[-1]}, not two: taken is what reaches half")
        return values >= full / 2
    raise source.wrong(
        f"has {len(found)} values ({_listed(found)}), where a mask has two, one of them 0; name the one that is meant "
        "(FILE#LABEL, from_labels in Python), or threshold it"
    )


def _coloured(colours: NDArray[np.uint8], source: _Source) -> Mask:
    """Of colours RGBA [H,W,4], what is neither black nor transparent; of a cut-out, what is not transparent."""
    opaque = _opaque(colours[..., 3], source)
    if not opaque.any():
        return opaque
    return _painted(colours, source) if opaque.all() else _cut_out(colours, opaque, source)


def _painted(colours: NDArray[np.uint8], source: _Source) -> Mask:
    """What one colour fills on black."""
    if (colours[..., :3] == colours[..., :1]).all():
        return _region(colours[..., 0], source)
    numbers = _numbers(colours)
    found = distinct(numbers)
    if source.lossy is None and (len(found) == 1 or (len(found) == 2 and found[0] == 0)):
        return numbers > 0
    brightest = colours[..., :3].max(axis=2).astype(np.int64)
    if (source.lossy is None and not few_areas(numbers, brightest)) or not one_colour(colours, brightest >= _FULL / 2):
        raise _too_many(found, source)
    return _region(brightest, source)


def _cut_out(colours: NDArray[np.uint8], opaque: Mask, source: _Source) -> Mask:
    """What is opaque, if that is one colour or a picture; of two colours, the one that is not black."""
    if source.lossy is not None:
        source.warn(f"{source.lossy}'s lossy compression: taken is what is not transparent; save it as PNG")
        return opaque
    found = distinct(_numbers(colours[opaque]))
    if len(found) == 1:
        return opaque
    numbers = np.where(opaque, _numbers(colours), -1)
    if len(found) == 2 and found[0] == 0:
        source.warn("both its colours and its transparency are in two; taken is what is neither black nor clear")
        return numbers > 0
    if not few_areas(numbers):
        raise _too_many(found, source)
    return opaque


def _opaque(alpha: NDArray[np.uint8], source: _Source) -> Mask:
    """What is not transparent; everything where alpha does not tell a region from its ground."""
    found = distinct(alpha)
    if len(found) == 1:
        return np.full(alpha.shape, bool(found[0]))
    if len(found) == 2 and found[0] == 0:
        return alpha > 0
    mask: Mask = alpha >= found[-1] / 2
    if not mask.all():
        source.warn(f"has {len(found)} grades of transparency: taken is what is at least half opaque")
    return mask


def _with_ground(mask: Mask, source: _Source) -> Mask:
    share = float(mask.mean())
    if share > NEARLY_ALL:
        raise source.wrong(
            f"marks {100 * share:.1f} % of the picture, as an inverted mask or one without a ground does; make the "
            "ground 0 (black) or transparent, or name the value that is meant (FILE#LABEL)"
        )
    return mask


def _too_many(found: NDArray[np.int64], source: _Source) -> GarMaskError:
    if source.labels is None:
        names = f"FILE#ID, ID = R + 256 G + 65536 B: {_listed(found)}"
    else:
        names = f"FILE#LABEL, the palette's indices: {_listed(source.labels)}"
    return source.wrong(
        f"has {len(found)} colours, where a mask has one on black or transparent ground; name the one that is meant "
        f"({names}), or give a mask of it"
    )


def _numbers(colours: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Colours […,3 or 4] as the numbers of panoptic images."""
    red, green, blue = (colours[..., channel].astype(np.int64) for channel in range(3))
    return red + 256 * green + 65536 * blue


def _listed(found: NDArray[np.generic]) -> str:
    shown = ", ".join(str(value) for value in found[:_SHOWN])
    return shown + ", …" * (len(found) > _SHOWN)
