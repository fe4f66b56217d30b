"""Pictures as arrays, from files, Pillow images or NumPy, with every surprise either handled or named."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from gar_edge.runtime.errors import GarError, GarImageError
from gar_edge.runtime.files.addresses import local_file, not_a_file, shown
from gar_edge.runtime.images.shape import Turn
from gar_edge.runtime.images.values import to_8_bit

ImageLike = str | Path | bytes | Image.Image | NDArray[np.generic]  # bytes: of a file

_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright
_UPRIGHT = range(2, 9)  # orientations that must be turned


@dataclass(frozen=True)
class Picture:
    """RGB uint8 [H,W,3], and how its file's EXIF had it turned upright, if it had."""

    pixels: NDArray[np.uint8]
    turn: Turn | None = None


def load_image(image: ImageLike) -> NDArray[np.uint8]:
    """A picture as RGB uint8 [H,W,3].

    Takes a path, a file's bytes, a Pillow image or an array ([H,W,3] or [H,W], uint8, RGB). Files are turned upright
    by their EXIF orientation, Pillow images are taken as they are; palettes are resolved, alpha is dropped, 16-bit
    grey is scaled. The result is a copy. `GarImageError` otherwise.
    """
    return load_picture(image).pixels


def load_picture(image: ImageLike) -> Picture:
    """Like `load_image`, with the turn that `find_mask` wants to know of."""
    if isinstance(image, np.ndarray):
        return Picture(_rgb_array(image))
    picture, turn = decoded(image, GarImageError, "image")
    return Picture(_rgb(picture, source_name(image, "image")), turn)


def decoded(
    source: str | Path | bytes | Image.Image, error: type[GarError], what: str
) -> tuple[Image.Image, Turn | None]:
    """The decoded Pillow image with its file's format, files turned upright; or the error that says why not.

    No state of the process is touched: any number of threads may decode side by side.
    """
    name = source_name(source, what)
    if isinstance(source, (str, Path)):
        if (remedy := not_a_file(str(source))) is not None:
            raise error(f"{name}: {remedy}")
        source = Path(local_file(str(source)))
    try:
        if isinstance(source, Image.Image):
            _check_size(source, error, name)
            if source.getexif().get(_ORIENTATION) in _UPRIGHT:
                warnings.warn(
                    f"{name}: a Pillow image is taken as it is, not turned by its EXIF; ImageOps.exif_transpose turns",
                    stacklevel=4,
                )
            return _copied(source), None
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as picture:
            _check_size(picture, error, name)
            return _upright(picture)
    except GarError:
        raise
    except FileNotFoundError:
        raise error(f"{name}: no such {what} file") from None
    except IsADirectoryError:
        raise error(f"{name}: a folder, where the {what} file is expected") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _bomb(error, name) from None
    except UnidentifiedImageError:
        raise error(f"{name}: not an image that can be read (PNG, JPEG, WebP, … are)") from None
    except Exception as problem:  # Pillow's decoders raise whatever comes to them where a file is damaged
        reason = shown(" ".join(str(problem).split())) or type(problem).__name__
        raise error(f"{name}: damaged or unreadable {what} ({reason})") from None


def converted(picture: Image.Image, mode: str, error: type[GarError], name: str) -> Image.Image:
    """The picture in another mode, e.g. "RGBA"; `error` where Pillow knows no way."""
    try:
        return picture.convert(mode)
    except ValueError:
        raise error(f"{name}: colours of kind {picture.mode} are not supported; save it as RGB or grey") from None


def source_name(source: object, what: str) -> str:
    """What an error calls the picture: its path where it has one."""
    return printable(shown(str(source))) if isinstance(source, (str, Path)) else what


def printable(name: str) -> str:
    """A name from elsewhere for a message of one line."""
    return name if name.isprintable() else ascii(name)[1:-1]


def _check_size(picture: Image.Image, error: type[GarError], name: str) -> None:
    """Pillow only warns where a picture has up to twice as many pixels as it allows."""
    if Image.MAX_IMAGE_PIXELS and picture.width * picture.height > Image.MAX_IMAGE_PIXELS:
        raise _bomb(error, name)


def _bomb(error: type[GarError], name: str) -> GarError:
    return error(f"{name}: over {Image.MAX_IMAGE_PIXELS} pixels, refused as a decompression bomb; scale it down")


def _upright(picture: Image.Image) -> tuple[Image.Image, Turn | None]:
    """A decoded copy, turned as the file's EXIF says."""
    orientation: Any = picture.getexif().get(_ORIENTATION)
    turn = Turn(*picture.size, int(orientation)) if orientation in _UPRIGHT else None
    copy = ImageOps.exif_transpose(picture)
    copy.format = picture.format  # Pillow's own copy would not know it any more
    return copy, turn


def _copied(picture: Image.Image) -> Image.Image:
    copy = picture.copy()
    copy.format = picture.format
    return copy


def _rgb(picture: Image.Image, name: str) -> NDArray[np.uint8]:
    if picture.mode.startswith("I;16") or picture.mode == "I":
        return np.repeat(to_8_bit(np.asarray(picture))[..., None], 3, axis=2)  # Pillow would clip 16 bits to 8
    if picture.mode == "F":
        raise GarImageError(f"{name}: has floating-point pixels; save it as 8 or 16 bit")
    if picture.mode == "P":
        picture = picture.convert("RGBA")  # a palette's transparency has no other way out
    return np.asarray(converted(picture, "RGB", GarImageError, name))


def _rgb_array(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    if array.dtype != np.uint8:
        raise GarImageError(f"image array must be uint8 (0…255), not {array.dtype}")
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise GarImageError(f"image array must be [height, width, 3] RGB, not {list(array.shape)}")
    return np.array(array, np.uint8, order="C")  # a copy: cameras refill the buffer that they hand over
