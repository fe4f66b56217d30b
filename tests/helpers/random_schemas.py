"""Random JSON Schemas, and what gar-nano answers to them: every finished answer parses and is valid."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gar_edge.runtime import Answer, GarPromptError, Options
from gar_edge.runtime.scene import Scene

NAMES = ["colour", "size", "parts", "ripe", "grasp", "x-y", "", "Größe"]
UNSUPPORTED: list[dict[str, Any]] = [
    {"not": {"type": "null"}}, {"uniqueItems": True}, {"contains": {"type": "integer"}},
    {"propertyNames": {"enum": NAMES}},
    {"if": {"type": "string"}, "then": {"maxLength": 3}}, {"dependentRequired": {"size": ["colour"]}},
    {"dependentSchemas": {"size": {"required": ["colour"]}}}, {"unevaluatedProperties": False},
    {"unevaluatedItems": False},
]  # fmt: skip


def _keywords(kind: str, **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Schemas of a type with any of these keywords."""
    return st.fixed_dictionaries({"type": st.just(kind)}, optional=optional)


def _containers(inside: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    some = st.lists(inside, min_size=1, max_size=3)
    return st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("array"), "items": inside, "maxItems": st.sampled_from([2, 3])},
            optional={"minItems": st.integers(0, 2)},
        ),
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(st.sampled_from(NAMES), inside, max_size=3)},
            optional={
                "required": st.lists(st.sampled_from(NAMES), max_size=2, unique=True),
                "additionalProperties": st.booleans(),
            },
        ),
        st.builds(lambda schemas: {"anyOf": schemas}, some),
        st.builds(lambda schemas: {"type": "array", "prefixItems": schemas, "items": False}, some),
    )  # fmt: skip


_VALUES = st.one_of(st.text(max_size=6), st.integers(-1000, 1000), st.booleans(), st.none())
_SCHEMAS = st.recursive(
    st.one_of(
        st.builds(lambda values: {"enum": values}, st.lists(_VALUES, min_size=1, max_size=4)),
        st.builds(lambda value: {"const": value}, _VALUES),
        _keywords(
            "string",
            minLength=st.integers(0, 9),
            maxLength=st.just(9),
            pattern=st.sampled_from(["^[a-z]+$", "[0-9]{2}", "^(red|pink)$", "a"]),
        ),
        _keywords("string", format=st.sampled_from(["date", "time", "date-time", "uuid", "ipv4", "email"])),
        _keywords("integer", minimum=st.integers(-3, 9), maximum=st.sampled_from([9, 10, 1000])),
        _keywords(
            "number",
            minimum=st.sampled_from([-1.5, 0, 0.25]),
            maximum=st.sampled_from([3, 7.75]),
            multipleOf=st.sampled_from([0.5, 1]),
        ),
        _keywords("boolean"),
        _keywords("null"),
    ),
    _containers,
    max_leaves=8,
)
SCHEMAS = st.one_of(
    _SCHEMAS,
    st.builds(lambda part: {"$defs": {"a": part}, "type": "array", "items": {"$ref": "#/$defs/a"}}, _SCHEMAS),
)
"""What planners' schemas are made of."""


def answer_random_schemas(scene: Scene, region: str, *, count: int, tokens: int) -> Counter[str]:
    """How many were refused, cut off and valid; AssertionError for an answer that is finished and not valid.

    Each is asked as it is, and once more with a keyword that answers cannot be held to, which the refusal must name.
    """
    seen: Counter[str] = Counter()

    def ask(schema: dict[str, Any]) -> Answer:
        return scene.ask("What is <Prompt0>?", {0: region}, options=Options(schema=schema, max_new_tokens=tokens))

    def check(schema: dict[str, Any], more: dict[str, Any]) -> None:
        with pytest.raises(GarPromptError, match=next(iter(more))):
            ask(schema | more)
        try:
            found = ask(schema)
        except GarPromptError:
            seen["refused"] += 1
            return
        if found.finish_reason == "length":
            assert found.value is None
            seen["cut off"] += 1
            return
        assert found.finish_reason == "stop"
        assert json.loads(found.text) == found.value
        jsonschema.Draft202012Validator(schema).validate(found.value)
        seen["valid"] += 1

    quiet = settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    quiet(given(SCHEMAS, st.sampled_from(UNSUPPORTED))(check))()
    return seen
