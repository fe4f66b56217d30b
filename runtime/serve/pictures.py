"""Pictures as requests bring them: bytes, or `data:` URLs. No file is read and no address is asked for one."""

from __future__ import annotations

import base64
import binascii
import re
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from gar_edge.runtime.errors import GarImageError, GarMaskError
from gar_edge.runtime.files.fields import Field, Text
from gar_edge.runtime.serve.limits import Limits

FORMATS = ("PNG", "JPEG", "WEBP")
TYPES = ("image/png", "image/jpeg", "image/webp")
ALIASES = ("image/jpg", "application/octet-stream")
_HEAD = re.compile(r"data:(?P<type>[\w.+/-]*)(?P<rest>[^,]{0,100}),", re.IGNORECASE)


def from_url(url: str, error: type[GarImageError | GarMaskError], what: str) -> bytes:
    """The bytes that a `data:` URL holds; `error` for any other address, and for what is no base64."""
    head = _HEAD.match(url[:200])
    if head is None:
        raise error(
            f"{what} must be a data: URL (data:image/png;base64,…); addresses are not fetched, files not opened"
        )
    if not head["rest"].lower().endswith(";base64"):
        raise error(f"{what}: a data: URL must be of base64 (data:image/png;base64,…)")
    try:
        text = url[head.end() :]
        return base64.b64decode("".join(text.split()), validate=True)  # lines of 76, as tools write it
    except (binascii.Error, ValueError):
        raise error(f"{what}: the data: URL is no base64") from None


def check_picture(data: bytes, limits: Limits, error: type[GarImageError | GarMaskError], what: str) -> int:
    """Pixels of a picture of a known format; `error` for another, and for too many. Nothing is decoded yet."""
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
    except UnidentifiedImageError:
        raise error(f"{what}: not a picture that is taken here: PNG, JPEG or WebP") from None
    except Exception as problem:  # Pillow's readers raise whatever comes to them where a file is damaged
        raise error(f"{what}: damaged ({' '.join(str(problem).split())[:200]})") from None
    if width * height > limits.pixels:
        raise error(f"{what}: {width}x{height} pixels, over {limits.pixels}; scale it down")
    return int(width * height)


class MaskUrls:
    """Mask and scribble images in regions, for `read_region`: `data:` URLs alone. pixels: of all that were read."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.pixels = 0

    def __call__(self, field: Field) -> bytes:
        name = f"{field.source}: {field.where}"
        data = from_url(field.to(Text), GarMaskError, name)
        self.pixels += check_picture(data, self._limits, GarMaskError, name)
        return data
