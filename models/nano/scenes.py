"""A seeded generator of drawn scenes with exact masks and ground truth.

Left out on purpose (near-ties): sizes between the three classes' ranges, and pairs whose outlines overlap a little
(less than `OVERLAP[0]` of the lower one) or nearly touch (gaps under `GAP`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gar_edge.models.nano import shapes
from gar_edge.models.nano.vocabulary import COLOURS, DIAMETER, FILLS, JITTER, RGB, SHAPES, SIZES

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]

GAP = 0.035  # least gap between the boxes of two objects that do not overlap, fractions of the shorter side
OVERLAP = (0.07, 0.26)  # how much of an object's area another may cover
MARGIN = 0.015  # least distance of an object to the image's edge, fractions of the shorter side
TRIES = 30
BACKGROUNDS = ("flat", "gradient", "noise", "texture")


@dataclass(frozen=True)
class Thing:
    """One object: its words, and where it is drawn (pixels; `angle` in radians)."""

    shape: str
    colour: str
    fill: str
    size: str
    centre: tuple[float, float]
    diameter: float
    angle: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 of the outline, pixels."""
        points = shapes.placed(self.shape, self.centre, self.diameter, self.angle)
        (x1, y1), (x2, y2) = points.min(axis=0), points.max(axis=0)
        return float(x1), float(y1), float(x2), float(y2)


@dataclass(frozen=True)
class Scene:
    """A picture [H,W,3] RGB, its things from back to front, their visible masks, and who covers whom.

    `visible[i]` is the share of thing i that nothing hides; `overlaps[i, j]` says that i and j overlap. `background` is
    one of `BACKGROUNDS`, or None where no picture was drawn.
    """

    image: Image
    things: tuple[Thing, ...]
    masks: tuple[Mask, ...]
    visible: tuple[float, ...]
    overlaps: Mask
    background: str | None

    @property
    def width(self) -> int:
        return self.image.shape[1]

    @property
    def height(self) -> int:
        return self.image.shape[0]


def draw_scene(rng: np.random.Generator, pixels: bool = True) -> Scene:
    """A fresh scene. `pixels=False` leaves the picture black and draws only the masks, from the same random numbers."""
    width, height = _canvas(rng)
    while True:
        things = _arrange(rng, width, height)
        if len(things) >= 2:
            break
    covers = [shapes.coverage(shapes.placed(t.shape, t.centre, t.diameter, t.angle), height, width) for t in things]
    full = [cover >= 0.5 for cover in covers]
    masks: list[Mask] = []
    hidden = np.zeros((height, width), np.bool_)
    for mask in reversed(full):
        masks.insert(0, mask & ~hidden)
        hidden |= mask
    overlaps = np.array([[i != j and bool((a & b).any()) for j, b in enumerate(full)] for i, a in enumerate(full)])
    visible = tuple(float(seen.sum() / max(whole.sum(), 1)) for seen, whole in zip(masks, full, strict=True))
    paint_seed = int(rng.integers(2**32))
    image, background = np.zeros((height, width, 3), np.uint8), None
    if pixels:
        image, background = _paint(np.random.default_rng(paint_seed), things, covers, height, width)
    return Scene(image, things, tuple(masks), visible, overlaps, background)


def _canvas(rng: np.random.Generator) -> tuple[int, int]:
    """Width and height: mostly up to 2:1, one in eight as long as 3:1; either way round."""
    short = int(rng.integers(100, 221))
    ratio = float(rng.uniform(2.05, 3.0) if rng.random() < 0.125 else np.exp(rng.uniform(0, np.log(1.9))))
    if ratio > 2:
        short = min(short, 112)
    long = round(short * ratio)
    return (long, short) if rng.random() < 0.5 else (short, long)


def _arrange(rng: np.random.Generator, width: int, height: int) -> tuple[Thing, ...]:
    """Things from back to front, each wholly inside the image."""
    wanted = int(rng.choice([2, 3, 4, 5, 6], p=[0.2, 0.28, 0.26, 0.16, 0.1]))
    things: list[Thing] = []
    for _ in range(wanted):
        partner = things[int(rng.integers(len(things)))] if things else None
        alike_colour, alike_shape = rng.random(2) < (0.3, 0.3)
        shape = partner.shape if partner and alike_shape else str(rng.choice(SHAPES))
        colour = partner.colour if partner and alike_colour else str(rng.choice(COLOURS))
        fill = str(rng.choice(FILLS))
        size = str(rng.choice(SIZES, p=[0.42, 0.35, 0.23]))
        overlapping = partner is not None and rng.random() < 0.3
        thing = _place(rng, width, height, things, partner if overlapping else None, (shape, colour, fill, size))
        if thing is not None:
            things.append(thing)
    return tuple(things)


def _place(
    rng: np.random.Generator,
    width: int,
    height: int,
    things: list[Thing],
    partner: Thing | None,
    words: tuple[str, str, str, str],
) -> Thing | None:
    """A thing of these words: over `partner`, where one is given, and clear of all others. None: no room found."""
    shape, colour, fill, size = words
    short = min(width, height)
    low, high = DIAMETER[size]
    for _ in range(TRIES):
        diameter = float(rng.uniform(low, high)) * short
        angle = float(rng.uniform(-0.2, 0.2))
        edge = diameter / 2 + MARGIN * short
        if partner is None:
            centre = (_along(rng, width, edge), _along(rng, height, edge))
        else:
            reach = (diameter + partner.diameter) / 2 * float(rng.uniform(0.55, 0.95))
            turn = float(rng.uniform(0, 2 * np.pi))
            centre = (partner.centre[0] + reach * np.cos(turn), partner.centre[1] + reach * np.sin(turn))
            if not (edge <= centre[0] <= width - edge and edge <= centre[1] <= height - edge):
                continue
        thing = Thing(shape, colour, fill, size, centre, diameter, angle)
        others = [other for other in things if other is not partner]
        clear = all(_apart(thing.box, other.box, GAP * short) for other in others)
        if clear and (partner is None or _covers_some(thing, partner, width, height)):
            return thing
    return None


def _along(rng: np.random.Generator, length: int, edge: float) -> float:
    """A coordinate on one axis: three times in four well inside the first, middle or last of its three bands."""
    if rng.random() < 0.75:
        low, high = ((0.0, 0.35), (0.43, 0.57), (0.65, 1.0))[int(rng.integers(3))]
        low, high = max(low * length, edge), min(high * length, length - edge)
        if low < high:
            return float(rng.uniform(low, high))
    return float(rng.uniform(edge, length - edge))


def _apart(a: tuple[float, ...], b: tuple[float, ...], gap: float) -> bool:
    return a[0] > b[2] + gap or b[0] > a[2] + gap or a[1] > b[3] + gap or b[1] > a[3] + gap


def _covers_some(thing: Thing, partner: Thing, width: int, height: int) -> bool:
    over, under = (
        shapes.coverage(shapes.placed(t.shape, t.centre, t.diameter, t.angle), height, width) >= 0.5
        for t in (thing, partner)
    )
    return bool(OVERLAP[0] <= (over & under).sum() / max(under.sum(), 1) <= OVERLAP[1])


def _paint(
    rng: np.random.Generator, things: tuple[Thing, ...], covers: list[shapes.Plane], height: int, width: int
) -> tuple[Image, str]:
    """The picture and the kind of its background."""
    canvas, background = _background(rng, height, width)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    for thing, cover in zip(things, covers, strict=True):
        x1, y1, x2, y2 = thing.box
        part = np.s_[max(int(y1) - 1, 0) : int(y2) + 2, max(int(x1) - 1, 0) : int(x2) + 2]
        first = np.array(RGB[thing.colour], np.float32) + rng.uniform(-JITTER, JITTER, 3).astype(np.float32)
        second = first * 0.3 if rng.random() < 0.5 else 255 - (255 - first) * 0.18
        pattern = shapes.fill_pattern(
            thing.fill,
            xs[part] + np.float32(0.5 - thing.centre[0]),
            ys[part] + np.float32(0.5 - thing.centre[1]),
            thing.diameter,
            float(rng.uniform(0, np.pi)),
        )[..., None]
        colour = first + pattern * (second - first)
        alpha = cover[part][..., None]
        canvas[part] += alpha * (colour - canvas[part])
    if rng.random() < 0.3:
        canvas += rng.normal(0, rng.uniform(1, 4), canvas.shape).astype(np.float32)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8), background


def _background(rng: np.random.Generator, height: int, width: int) -> tuple[NDArray[np.float32], str]:
    """Greyish ground [H,W,3] and which of `BACKGROUNDS` it is."""
    base = _grey(rng)
    kind = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    plane = np.broadcast_to(base, (height, width, 3)).astype(np.float32)
    if kind == "flat":
        return plane, kind
    if kind == "gradient":
        ramp = np.linspace(0, 1, width, dtype=np.float32)[None, :, None]
        if rng.random() < 0.5:
            ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
        return plane + ramp * (_grey(rng) - base), kind
    if kind == "noise":
        cells = int(rng.integers(3, 12))
        noise = rng.normal(0, 14, (cells, cells)).astype(np.float32)
        return plane + cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)[..., None], kind
    period, angle = rng.uniform(6, 16), rng.uniform(0, np.pi)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    wave = np.sin((xs * np.cos(angle) + ys * np.sin(angle)) * (2 * np.pi / period))
    return plane + (wave * rng.uniform(4, 14)).astype(np.float32)[..., None], kind


def _grey(rng: np.random.Generator) -> NDArray[np.float32]:
    return (rng.uniform(25, 235) + rng.uniform(-14, 14, 3)).astype(np.float32)
