"""Closing a JSON Schema's objects, so that an answer has the properties that are named, and ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_COMBINING = ("allOf", "anyOf", "oneOf", "$ref", "if", "not", "dependentSchemas")
_OPEN = ("additionalProperties", "unevaluatedProperties", "patternProperties", "propertyNames")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SINGLE = ("items", "additionalProperties", "contains", "not", "if", "then", "else", "propertyNames")


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with `additionalProperties: false` where an object names its properties and says nothing of others.

    JSON Schema lets every object have any more properties; a small model, once let, goes on with them for ever. What
    the closed schema allows, the open one allows too. A schema that puts objects together from parts, of which each
    would forbid the others' properties, is left as it is; so is one with `oneOf`, of whose parts only one may allow a
    value.
    """
    if any("properties" in part and any(name in part for name in _COMBINING) for part in _parts(schema)):
        return dict(schema)
    if any("allOf" in part or "oneOf" in part or ("$ref" in part and "required" in part) for part in _parts(schema)):
        return dict(schema)
    return _close(schema)


def _close(schema: Mapping[str, Any]) -> dict[str, Any]:
    made = {name: _inside(name, value) for name, value in schema.items()}
    named = made.get("properties")
    if isinstance(named, dict) and not any(name in made for name in _OPEN):
        required = made.get("required", [])
        if isinstance(required, list) and all(name in named for name in required):
            made["additionalProperties"] = False
    return made


def _inside(name: str, value: Any) -> Any:
    if name in _MAPS and isinstance(value, Mapping):
        return {key: _close(part) if isinstance(part, Mapping) else part for key, part in value.items()}
    if name in _LISTS and isinstance(value, list):
        return [_close(part) if isinstance(part, Mapping) else part for part in value]
    if name in _SINGLE and isinstance(value, Mapping):
        return _close(value)
    return value


def _parts(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A schema and every schema in it."""
    yield schema
    for name, value in schema.items():
        inside: list[Any] = []
        if name in _MAPS and isinstance(value, Mapping):
            inside = list(value.values())
        elif name in _LISTS and isinstance(value, list):
            inside = value
        elif name in _SINGLE:
            inside = [value]
        for part in inside:
            if isinstance(part, Mapping):
                yield from _parts(part)
