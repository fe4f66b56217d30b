"""JSON read as a stream: held to Python's own parser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.refusals import refused
from hypothesis import given
from hypothesis import strategies as st

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.files import json_stream

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def put_together(path: Path) -> Any:
    """What the parts make, once more as one value."""
    found: Any = None
    for member, place, value in json_stream.elements(path):
        if member is None:
            found = [*(found or []), value]
        elif place:
            found[member].append(value)
        else:
            found = {**(found or {}), member: [value] if isinstance(whole[member], list) else value}
    return found


whole: Any = None


@given(value=VALUES, indent=st.sampled_from([None, 1]), piece=st.sampled_from([1, 2, 7, 1 << 20]))
def test_any_value_comes_out_as_pythons_parser_has_it(
    tmp_path_factory: pytest.TempPathFactory, value: Any, indent: int | None, piece: int
) -> None:
    global whole  # noqa: PLW0603 - what `put_together` must know of a member
    whole = value
    path = tmp_path_factory.mktemp("json") / "value.json"
    path.write_text(json.dumps(value, indent=indent), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_PIECE", piece)
        found = put_together(path)
        names = list(json_stream.members(path))
    assert names == (list(value) if isinstance(value, dict) else [None])
    if isinstance(value, list):
        assert found == (value or None)
    elif isinstance(value, dict):
        lists = {name for name, one in value.items() if one == []}  # no element, so nothing of them comes
        assert (found or {}) == {name: one for name, one in value.items() if name not in lists}
    else:
        assert found == [value]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1, 2",
        "[1 2]",
        '{"a" 1}',
        '{"a": 1,}',
        "[1]]",
        "{1: 2}",
        '{"a": [1, }',
        "[1, nul]",
        '["open',
        "[" * 9999,
    ],
)
@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_what_is_no_json_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, piece: int) -> None:
    monkeypatch.setattr(json_stream, "_PIECE", piece)
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises((ValueError, RecursionError)):
        json.loads(text)
    with refused("bad.json: not JSON that can be read"):
        list(json_stream.elements(path))
    if text.startswith("{"):
        with refused("bad.json: not JSON that can be read"):
            list(json_stream.members(path))


def test_what_stands_before_the_fault_is_read(tmp_path: Path) -> None:
    path = tmp_path / "torn.json"
    path.write_text('{"images": [{"id": 1}, {"id": 2}, {"i')
    parts = json_stream.elements(path)
    assert [next(parts), next(parts)] == [("images", 0, {"id": 1}), ("images", 1, {"id": 2})]
    with pytest.raises(GarMaskError, match="character"):
        next(parts)


def test_no_file_and_no_text_are_refused(tmp_path: Path) -> None:
    with refused("cannot be read"):
        list(json_stream.elements(tmp_path / "none.json"))
    path = tmp_path / "latin.json"
    path.write_bytes(b'["\xff"]')
    with refused("not JSON"):
        list(json_stream.elements(path))


def test_an_element_without_end_does_not_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_LONGEST", 1 << 12)
    monkeypatch.setattr(json_stream, "_PIECE", 1 << 8)
    path = tmp_path / "long.json"
    path.write_text('["' + "x" * (1 << 16) + '"]')
    with refused("no element ends within 4096 characters"):
        list(json_stream.elements(path))
