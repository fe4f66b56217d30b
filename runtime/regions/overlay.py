"""A picture with its regions in colours and numbers, and what was said about them beneath."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from gar_edge.runtime.errors import GarImageError
from gar_edge.runtime.images.shape import Mask, fit_mask

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Okabe and Ito's, told apart with any colour vision.
COLOURS: Sequence[Colour] = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (204, 121, 167))
TINT = 0.25  # of the colour over a region: its own colours stay visible
LEAST_WIDTH = 640  # pixels: smaller pictures are enlarged, so that text has room
GROUND, INK, SOFT = (255, 255, 255), (20, 22, 25), (95, 100, 108)

# Those that systems come with, by what they can draw: Pillow looks them up by name in the system's folders.
FONTS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf", "segoeui.ttf",
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "wqy-microhei.ttc", "wqy-zenhei.ttc", "PingFang.ttc",
    "DroidSansFallbackFull.ttf", "Hiragino Sans GB.ttc", "Arial Unicode.ttf", "msyh.ttc", "YuGothR.ttc", "malgun.ttf",
)  # fmt: skip
_NO_CHARACTER = "\uffff"  # which no font draws
# Where a line may break: at spaces, and between characters of scripts that have none.
_UNIT = re.compile(
    r"\s+|[\u2e80-\ud7ff\uf900-\uffef\U00020000-\U0003ffff]|[^\s\u2e80-\ud7ff\uf900-\uffef\U00020000-\U0003ffff]+"
)


def draw_overlay(
    image: NDArray[np.uint8], regions: Mapping[int, Mask], question: str | None, answer: str
) -> Image.Image:
    """The RGB picture [H,W,3] with its regions, masks [H,W] by number, and question and answer as its caption."""
    drawn = draw_regions(image, regions)
    caption = _caption(drawn.width, _text_size(drawn), question, answer)
    whole = Image.new("RGB", (drawn.width, drawn.height + caption.height), GROUND)
    whole.paste(drawn, (0, 0))
    whole.paste(caption, (0, drawn.height))
    return whole


def draw_regions(image: NDArray[np.uint8], regions: Mapping[int, Mask]) -> Image.Image:
    """The RGB picture [H,W,3], a small one enlarged, with its regions' outlines and numbers, masks [H,W] by number."""
    scale = max(1, -(-LEAST_WIDTH // image.shape[1]))
    picture = Image.fromarray(image)
    if scale > 1:
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.BICUBIC)
    size = _text_size(picture)
    masks = {number: fit_mask(mask, *picture.size) for number, mask in regions.items()}
    drawn = Image.fromarray(_outlined(np.array(picture), masks, max(1, size // 12)))
    for number, mask in masks.items():
        _number(drawn, number, mask, size)
    return drawn


def _text_size(picture: Image.Image) -> int:
    return max(16, round(0.026 * max(picture.size)))


def check_writable(path: Path) -> None:
    """`GarImageError` where no picture could be written to this path: known before anything is computed."""
    Image.init()
    if path.suffix.lower() not in Image.EXTENSION or Image.EXTENSION[path.suffix.lower()] not in Image.SAVE:
        raise GarImageError(f"{path}: not the name of a picture that can be written; end it in .png or .jpg")
    if not path.absolute().parent.is_dir():
        raise GarImageError(f"{path}: its folder does not exist; make it first")


def _outlined(image: NDArray[np.uint8], masks: Mapping[int, Mask], width: int) -> NDArray[np.uint8]:
    """Regions tinted, their edges in full colour between white and black, which stand out from any ground."""
    import cv2

    for number, mask in masks.items():
        tint = np.array(_colour(number), np.float32)
        image[mask] = np.rint(image[mask] * (1 - TINT) + tint * TINT).astype(np.uint8)
    for number, mask in masks.items():
        edges, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        for colour, thickness in ((INK, 2 * width + 5), (GROUND, 2 * width + 3), (_colour(number), 2 * width + 1)):
            cv2.drawContours(image, edges, -1, colour, thickness, cv2.LINE_AA)
    return image


def _number(picture: Image.Image, number: int, mask: Mask, size: int) -> None:
    """A disc with the number where the region is widest."""
    import cv2

    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    radius = 0.8 * size
    x, y = (
        float(np.clip(at, radius + 1, side - radius - 2)) for at, side in zip((column, row), picture.size, strict=True)
    )
    draw, colour = ImageDraw.Draw(picture), _colour(number)
    draw.ellipse(
        (x - radius, y - radius, x + radius, y + radius), fill=colour, outline=GROUND, width=max(1, size // 10)
    )
    draw.text((x, y), str(number), fill=_on(colour), font=_font(str(number), size).face, anchor="mm")


def _caption(width: int, size: int, question: str | None, answer: str) -> Image.Image:
    """Question and answer in lines of the picture's width."""
    margin, step = round(0.8 * size), round(1.35 * size)
    font = _font((question or "") + answer, size)
    room = width - 2 * margin
    lines = [(line, SOFT) for line in _lines(font, question, room)] if question else []
    lines += [(line, INK) for line in _lines(font, answer.strip() or "(no answer)", room)]
    caption = Image.new("RGB", (width, 2 * margin + step * len(lines)), GROUND)
    draw = ImageDraw.Draw(caption)
    for row, (line, colour) in enumerate(lines):
        draw.text((margin, margin + row * step), line, fill=colour, font=font.face)
    return caption


@dataclass(frozen=True)
class _Face:
    """A font, and the characters that it cannot draw."""

    face: Font
    lacking: frozenset[str]

    def drawable(self, text: str) -> str:
        """The text with what the font lacks written out as its code."""
        return "".join(f"\\u{ord(one):04x}" if one in self.lacking else one for one in text)


def _font(text: str, size: int) -> _Face:
    """The first known font that draws the whole text, or the one that lacks least of it, with a warning."""
    best: _Face | None = None
    for name in (*FONTS, None):
        try:
            face = ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)
        except OSError:
            continue
        found = _Face(face, frozenset(one for one in set(text) if not _draws(face, one)))
        if not found.lacking:
            return found
        if best is None or len(found.lacking) < len(best.lacking):
            best = found
    assert best is not None  # Pillow's own is always there
    shown = "".join(sorted(best.lacking)[:5])
    warnings.warn(
        f"no font here draws {shown!r}: codes are written instead; install one, e.g. Noto Sans CJK", stacklevel=2
    )
    return best


def _draws(face: Font, character: str) -> bool:
    """Whether the font has a picture of the character: not the one that stands for what it lacks."""
    if character.isspace():
        return True
    try:
        return bytes(face.getmask(character)) != bytes(face.getmask(_NO_CHARACTER))
    except UnicodeEncodeError:  # a bitmap font, Latin-1 alone
        return False


def _lines(font: _Face, text: str, room: int) -> list[str]:
    """The text in lines of at most `room` pixels; its own line breaks are kept."""
    lines = []
    for paragraph in text.splitlines():
        line = ""
        for unit in _UNIT.findall(font.drawable(paragraph)):
            pieces = [unit] if font.face.getlength(unit) <= room else list(unit)  # a long word breaks anywhere
            for piece in pieces:
                if line and font.face.getlength((line + piece).rstrip()) > room:
                    lines.append(line.rstrip())
                    line = ""
                line += piece if line else piece.lstrip()
        lines.append(line.rstrip())
    return lines


def _colour(number: int) -> Colour:
    return COLOURS[number % len(COLOURS)]


def _on(colour: Colour) -> Colour:
    """Ink or white, whichever stands out more from the colour."""
    luminance = 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]
    return INK if luminance > 110 else GROUND
