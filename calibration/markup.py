"""HTML and SVG as nested nodes, escaped on the way in."""

from __future__ import annotations

import html
from collections.abc import Mapping

NONE = "–"  # stands where there is no figure


class Markup(str):
    """HTML already; any other text is escaped on its way into a node."""


def node(tag: str, attributes: Mapping[str, object], *content: str) -> Markup:
    """An element: attributes, and content that is not `Markup`, are escaped."""
    opening = "".join(f' {name}="{_escaped(str(value))}"' for name, value in attributes.items())
    inside = "".join(part if isinstance(part, Markup) else _escaped(part) for part in content)
    return Markup(f"<{tag}{opening}>{inside}</{tag}>")


def _escaped(text: str) -> str:
    """Text for HTML and SVG; what they cannot hold, like control characters, becomes a space."""
    return html.escape("".join(one if one.isprintable() else " " for one in text))
