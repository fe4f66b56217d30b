"""Pictures and masks as arrays, from files, Pillow images or NumPy, with every surprise either handled or named."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from gar_edge.runtime.errors import GarError, GarImageError, GarMaskError
from gar_edge.runtime.files.addresses import local_file, not_a_file, shown

ImageLike = str | Path | Image.Image | NDArray[np.generic]
MaskLike = ImageLike
Extent = tuple[float, float, float, float]

_JPEG = ("JPEG", "MPO")  # MPO: several JPEGs in one file, as some cameras write
_DECODING = threading.Lock()  # the warnings filter, which decides on decompression bombs, belongs to the whole process


def load_image(image: ImageLike) -> NDArray[np.uint8]:
    """A picture as RGB uint8 [H,W,3].

    Takes a path, a Pillow image or an array ([H,W,3] or [H,W], uint8, RGB). Files are turned upright by their EXIF
    orientation; palettes are resolved, alpha is dropped, 16-bit grey is scaled. `GarImageError` otherwise.
    """
    if isinstance(image, np.ndarray):
        return _rgb_array(image)
    return _rgb(_decoded(image, GarImageError, "image"), _name(image, "image"))


def load_mask(mask: MaskLike) -> NDArray[np.bool_]:
    """A region as bool [H,W]: true where the mask is neither zero (black) nor wholly transparent.

    Takes a path, a Pillow image or an array ([H,W] of bool or numbers, or [H,W,1]). `GarMaskError` otherwise.
    Warns of a JPEG: what its compression adds around the region is not zero.
    """
    if isinstance(mask, np.ndarray):
        return _mask_array(mask)
    picture = _decoded(mask, GarMaskError, "mask")
    if picture.format in _JPEG:
        warnings.warn(
            f"{_name(mask, 'mask')}: JPEG's lossy compression puts stray pixels into a mask; save it as PNG",
            stacklevel=2,
        )
    if picture.mode in ("1", "L", "I", "F") or picture.mode.startswith("I;16"):
        return _mask_array(np.asarray(picture))
    colours = np.asarray(_converted(picture, "RGBA", GarMaskError, _name(mask, "mask")))
    return colours[..., :3].any(axis=2) & (colours[..., 3] > 0)


def load_labels(labels: MaskLike) -> NDArray[np.int64]:
    """A label image as int64 [H,W]: palette indices or grey values, which number instances; 0 is the background.

    Takes a path, a Pillow image or an integer array [H,W]. `GarMaskError` for colours and for anything else.
    """
    if isinstance(labels, np.ndarray):
        if labels.ndim != 2 or 0 in labels.shape or labels.dtype.kind not in "bui":
            raise GarMaskError(
                f"label array must be [height, width] of whole numbers, not {list(labels.shape)} {labels.dtype}"
            )
        return labels.astype(np.int64)
    picture = _decoded(labels, GarMaskError, "label image")
    if picture.mode not in ("1", "L", "P", "I") and not picture.mode.startswith("I;16"):
        raise GarMaskError(
            f"{_name(labels, 'label image')}: has colours of kind {picture.mode}, where pixel values number instances; "
            "save it as palette or grey"
        )
    return np.asarray(picture).astype(np.int64)


def load_colours(image: ImageLike) -> NDArray[np.uint8]:
    """A drawing as RGBA uint8 [H,W,4]; arrays are RGB or RGBA uint8. `GarMaskError` otherwise."""
    if not isinstance(image, np.ndarray):
        name = _name(image, "scribble")
        return np.asarray(_converted(_decoded(image, GarMaskError, "scribble"), "RGBA", GarMaskError, name))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (3, 4) or 0 in image.shape:
        raise GarMaskError(
            f"scribble array must be uint8 [height, width, 3 or 4], not {list(image.shape)} {image.dtype}"
        )
    colours = np.full((*image.shape[:2], 4), 255, np.uint8)
    colours[..., : image.shape[2]] = image
    return colours


def fit_mask(mask: NDArray[np.bool_], width: int, height: int) -> NDArray[np.bool_]:
    """The mask resized to width x height by nearest neighbour."""
    rows = (np.arange(height) * mask.shape[0]) // height
    columns = (np.arange(width) * mask.shape[1]) // width
    return mask[rows[:, None], columns]


def mask_box(mask: NDArray[np.bool_]) -> Extent:
    """(x_min/W, y_min/H, x_max/W, y_max/H) of the extreme pixels, inclusive, as the released code has it."""
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        raise GarMaskError("mask is empty: no pixel is set; mark the region with non-zero pixels")
    height, width = mask.shape
    return columns[0] / width, rows[0] / height, columns[-1] / width, rows[-1] / height


def _decoded(source: str | Path | Image.Image, error: type[GarError], what: str) -> Image.Image:
    """The decoded Pillow image, upright, with its file's format; or the error that says why not."""
    name = _name(source, what)
    if isinstance(source, (str, Path)):
        if (remedy := not_a_file(str(source))) is not None:
            raise error(f"{name}: {remedy}")
        source = Path(local_file(str(source)))
    try:
        with _DECODING, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow remarks on odd files either hurts, and is raised, or does not
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if isinstance(source, Image.Image):
                return _upright(source)
            with Image.open(source) as picture:
                return _upright(picture)
    except FileNotFoundError:
        raise error(f"{name}: no such {what} file") from None
    except IsADirectoryError:
        raise error(f"{name}: a folder, where the {what} file is expected") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise error(
            f"{name}: over {Image.MAX_IMAGE_PIXELS} pixels, refused as a decompression bomb; scale it down"
        ) from None
    except UnidentifiedImageError:
        raise error(f"{name}: not an image that can be read (PNG, JPEG, WebP, … are)") from None
    except Exception as problem:  # Pillow's decoders raise whatever comes to them where a file is damaged
        reason = shown(" ".join(str(problem).split())) or type(problem).__name__
        raise error(f"{name}: damaged or unreadable {what} ({reason})") from None


def _upright(picture: Image.Image) -> Image.Image:
    """A decoded copy. Pillow's own would not know the format any more."""
    copy = ImageOps.exif_transpose(picture)
    copy.format = picture.format
    return copy


def _two_valued(array: NDArray[np.generic]) -> bool:
    """Whether there is zero and at most one other, finite value."""
    marked = array[array != 0]
    return bool(np.isfinite(marked).all() and (marked == marked[:1]).all())


def _name(source: ImageLike, what: str) -> str:
    """What an error calls the picture: its path where it has one."""
    return shown(str(source)) if isinstance(source, (str, Path)) else what


def _rgb(picture: Image.Image, name: str) -> NDArray[np.uint8]:
    if picture.mode.startswith("I;16") or picture.mode == "I":
        grey = np.asarray(picture).astype(np.float64)  # Pillow would clip 16 bits to 8
        scaled = np.rint(grey.clip(0, 65535) / 257).astype(np.uint8)
        return np.repeat(scaled[..., None], 3, axis=2)
    if picture.mode == "F":
        raise GarImageError(f"{name}: has floating-point pixels; save it as 8 or 16 bit")
    if picture.mode == "P":
        picture = picture.convert("RGBA")  # a palette's transparency has no other way out
    return np.asarray(_converted(picture, "RGB", GarImageError, name))


def _converted(picture: Image.Image, mode: str, error: type[GarError], name: str) -> Image.Image:
    try:
        return picture.convert(mode)
    except ValueError:
        raise error(f"{name}: colours of kind {picture.mode} are not supported; save it as RGB or grey") from None


def _rgb_array(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    if array.dtype != np.uint8:
        raise GarImageError(f"image array must be uint8 (0…255), not {array.dtype}")
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise GarImageError(f"image array must be [height, width, 3] RGB, not {list(array.shape)}")
    return np.ascontiguousarray(array).astype(np.uint8, copy=False)


def _mask_array(array: NDArray[np.generic]) -> NDArray[np.bool_]:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "buif":
        raise GarMaskError(
            f"mask array must be [height, width] of bool or numbers, not {list(array.shape)} {array.dtype}"
        )
    if array.dtype.kind == "f" and not _two_valued(array):
        raise GarMaskError("mask array holds scores or logits, not a mask; compare them with a threshold first")
    return array != 0
