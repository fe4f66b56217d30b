"""JSON Schemas in short."""

from __future__ import annotations

from typing import Any


def object_of(**properties: Any) -> dict[str, Any]:
    """Of an object that has all of these properties."""
    return {"type": "object", "properties": properties, "required": list(properties)}
