"""The words of gar-nano's world: what an object can be and where it can lie."""

from __future__ import annotations

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart", "moon", "arrow")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
FILLS = ("plain", "striped", "dotted", "ringed")
SIZES = ("small", "medium", "large")
PLACES = (
    ("top left", "top", "top right"),
    ("left", "center", "right"),
    ("bottom left", "bottom", "bottom right"),
)

RGB = {
    "red": (214, 32, 36),
    "orange": (240, 130, 22),
    "yellow": (240, 220, 40),
    "green": (36, 150, 52),
    "cyan": (40, 205, 215),
    "blue": (36, 66, 205),
    "purple": (128, 42, 160),
    "pink": (245, 130, 190),
}
"""Mean colour of each name, 8-bit RGB; an object's own colour varies by up to `JITTER` a channel."""

JITTER = 10

DIAMETER = {"small": (0.16, 0.21), "medium": (0.28, 0.34), "large": (0.44, 0.52)}
"""An object's longer side as a fraction of the image's shorter side; the gaps leave out near-ties."""
