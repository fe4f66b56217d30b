"""What a first user is told: the bundle that comes with the package knows drawn shapes only."""

from __future__ import annotations

ABOUT_NANO = (
    "This is gar-nano: it knows drawn shapes (as in examples/scene_1.png) and nothing else. "
    "For photographs: gar-export --size 1b"
)
