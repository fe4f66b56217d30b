"""Structures that answers cannot be held to, are bounded in, or are changed before they are."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import jsonschema
import pydantic
import pytest
from helpers.examples import COLOUR, MASK
from helpers.random_schemas import answer_random_schemas
from helpers.schemas import object_of

from gar_edge.runtime import GarPromptError, Options
from gar_edge.runtime.generate.closing import closed
from gar_edge.runtime.scene import Scene


class Unschematic(pydantic.BaseModel):
    """A model that JSON cannot say."""

    field: Callable[[], None]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"not": {"type": "string"}}, "not"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "array", "contains": {"type": "integer"}}, "contains"),
        ({"if": {"type": "string"}, "then": {"maxLength": 3}}, "if"),
        (object_of(a={"dependentRequired": {"a": ["b"]}}), "dependentRequired"),
        ({"propertyNames": {"pattern": "^a"}}, "propertyNames"),
        ({"type": "string", "format": "moon phase"}, "moon phase"),
        ({"oneOf": [{"minimum": 1}, {"maximum": 5}]}, "oneOf"),
        ({"oneOf": [{"minimum": 1}, {"maximum": 5}], "x-guidance": {"coerce_one_of": True}}, "oneOf"),
        ({"not": {}, "x-guidance": {"lenient": True}}, "not"),
        ({"type": "integer", "minimum": 3, "maximum": 1}, "minimum"),
        ({"enum": []}, "empty"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "incompatible types"),
        ({"type": "whale"}, "whale"),
        ({"$ref": "#/nowhere"}, "nowhere"),
        ({"type": "string", "pattern": "(a|b"}, "unclosed group"),
        ({"type": "string", "pattern": "a(?=b)"}, "look-ahead"),
        ({"enum": [object()]}, "not JSON"),
        ({"enum": [float("nan")]}, "not JSON"),
        ("string", "a JSON Schema"),
        (int, "pydantic model"),
        (Unschematic, "Unschematic has no JSON Schema"),
        ({"enum": ["x" * (1 << 18)]}, "at most 262144"),
    ],
)
def test_schemas_that_cannot_be_held_to_are_refused_by_name(scene: Scene, schema: object, message: str) -> None:
    with pytest.raises(GarPromptError, match=message):
        scene.ask(COLOUR, MASK, options=Options(schema=schema))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regex": "("}, "unclosed group"),
        ({"regex": ""}, "not empty"),
        ({"regex": 7}, "must be a text"),
        ({"grammar": "begin: 'a'"}, "grammar cannot be used"),
        ({"grammar": " "}, "not empty"),
        ({"choices": ("a",)}, "two choices or more"),
        ({"choices": ("a", "a")}, "given twice"),
        ({"choices": "ab"}, "list of texts"),
        ({"regex": "a", "choices": ("a", "b")}, "regex and choices were given"),
        ({"schema": {}, "grammar": "start: /a/"}, "schema and grammar were given"),
        ({"regex": "a" * ((1 << 18) + 1)}, "at most 262144"),
        ({"logprobs": -1}, "0 .* or more"),
        ({"choices": {"a", "b"}}, "list of texts"),
        ({"choosing": ["a", "b"]}, "must be a Choosing"),
    ],
)
def test_contradictions_are_refused(scene: Scene, options: dict[str, Any], message: str) -> None:
    with pytest.raises(GarPromptError, match=message):
        scene.ask(COLOUR, MASK, options=Options(**options))


def test_finished_answers_to_random_schemas_are_valid(scene: Scene) -> None:
    seen = answer_random_schemas(scene, MASK[0], count=150, tokens=100)
    assert seen["valid"] > 50


def test_recursion_is_held_to(scene: Scene) -> None:
    branches = {"type": "array", "items": {"$ref": "#/$defs/tree"}}
    tree = {"$ref": "#/$defs/tree", "$defs": {"tree": object_of(children=branches)}}
    answer = scene.ask(COLOUR, MASK, options=Options(schema=tree, max_new_tokens=200))
    if answer.finish_reason == "stop":
        jsonschema.validate(answer.value, tree)
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(sys.getrecursionlimit() + 100):
        deep = {"type": "array", "items": deep}
    with pytest.raises(GarPromptError, match="not JSON"):
        Options(schema=deep)


def test_patterns_that_explode_are_refused_or_end_in_time(scene: Scene) -> None:
    """Nested counts of counts have more states than any limit; what is taken is followed token by token in time."""
    with pytest.raises(GarPromptError, match="too much"):
        scene.ask(COLOUR, MASK, options=Options(regex="(.{1,1000}){1000}"))
    for pattern in ("(a|aa)*b", "(a*)*c", "(x+x+)+y", "((a{0,100}){0,100}){0,100}"):
        answer = scene.ask(COLOUR, MASK, options=Options(regex=pattern, max_new_tokens=20, seconds=20))
        assert answer.finish_reason in ("stop", "length")


OPEN = {"additionalProperties": True}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (object_of(a={}), object_of(a={}) | {"additionalProperties": False}),
        (object_of(a={}) | OPEN, object_of(a={}) | OPEN),
        ({"type": "object"}, {"type": "object"}),
        ({"properties": {"a": {}}, "required": ["b"]}, {"properties": {"a": {}}, "required": ["b"]}),
        ({"properties": {"properties": {"enum": [{"properties": {}}]}}},
         {"properties": {"properties": {"enum": [{"properties": {}}]}}, "additionalProperties": False}),
        ({"items": {"properties": {}}}, {"items": {"properties": {}, "additionalProperties": False}}),
        ({"anyOf": [{"properties": {"a": {}}}, {"type": "null"}]},
         {"anyOf": [{"properties": {"a": {}}, "additionalProperties": False}, {"type": "null"}]}),
        ({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
         {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}),
        ({"properties": {"a": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
         {"properties": {"a": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}),
        ({"oneOf": [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}}]},
         {"oneOf": [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}}]}),
        ({"properties": {"a": {}}, "patternProperties": {"^b": {}}},
         {"properties": {"a": {}}, "patternProperties": {"^b": {}}}),
    ],
)  # fmt: skip
def test_objects_that_say_nothing_of_more_properties_are_closed(
    schema: dict[str, Any], expected: dict[str, Any]
) -> None:
    before = json.dumps(schema)
    assert closed(schema) == expected
    assert json.dumps(schema) == before
