"""JSON into dataclasses: the field that is wrong is named with its whole place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from gar_edge.runtime.files.validated import validated


@dataclass(frozen=True)
class Leaf:
    size: int
    dims: tuple[int | str, ...] = ()
    share: float = 1.0
    note: str | None = None


@dataclass(frozen=True)
class Tree:
    leaves: Mapping[str, Leaf]
    deep: Mapping[str, Mapping[str, tuple[Leaf, ...]]] = field(default_factory=dict)
    anything: Any = None


def test_what_is_right_is_built_and_what_is_unknown_ignored() -> None:
    value = {"leaves": {"a": {"size": 1, "dims": [2, "n"], "share": 2, "mood": 3}}, "anything": {"x": [1]}, "more": 1}
    before = repr(value)
    assert validated(Tree, value, "f") == Tree({"a": Leaf(1, (2, "n"), 2.0)}, {}, {"x": [1]})
    assert repr(value) == before


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "f: expected an object, found list"),
        ({}, "f: no field 'leaves'"),
        ({"leaves": []}, "f.leaves: expected an object, found list"),
        ({"leaves": {"a": {"size": 1}, "b.c": {}}}, "f.leaves.b.c: no field 'size'"),
        ({"leaves": {"a": {"size": 1}, "b": {"size": True}}}, "f.leaves.b.size: expected int, found bool"),
        ({"leaves": {"a": {"size": 1.0}}}, "f.leaves.a.size: expected int, found float"),
        ({"leaves": {"a": {"size": 1, "note": 5}}}, "f.leaves.a.note: expected str, found int"),
        ({"leaves": {"a": {"size": 1, "dims": [1, None]}}}, "f.leaves.a.dims[1]: expected int | str, found NoneType"),
        ({"leaves": {}, "deep": {"x": {}, "y": {"p": [], "q": [{"size": 1}, {"size": "1"}]}}},
         "f.deep.y.q[1].size: expected int, found str"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(value: Any, said: str) -> None:
    before = repr(value)
    with pytest.raises(ValueError, match=r"^f") as caught:
        validated(Tree, value, "f")
    assert str(caught.value) == said
    assert repr(value) == before
