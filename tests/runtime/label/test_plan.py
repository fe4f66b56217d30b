"""Plans: keys, groups and parts, the same whenever they are made."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gar_edge.runtime.errors import GarError, GarPromptError
from gar_edge.runtime.label.entry import Entry
from gar_edge.runtime.label.plan import Gathered, Plan, PlannedRow, rows_in

ENTRIES = st.builds(
    lambda image, box, name: {"image": image, "regions": [{"box": box}], "id": name},
    st.sampled_from(["a.png", "b.png", "deep/c.png", "\ud800.png"]),
    st.sampled_from([[0, 0, 5, 5], [1.5, 1, 9, 9]]),
    st.sampled_from([None, 1, "1"]),
)


def planned(values: list[Any]) -> list[PlannedRow]:
    with Gathered(Entry("jobs.json", place, value) for place, value in enumerate(values)) as gathered:
        return [PlannedRow(**json.loads(line)) for line in gathered.lines()]


def boxes(count: int, pictures: int) -> list[dict[str, Any]]:
    return [{"image": f"{n % pictures}.png", "regions": [{"box": [n, 0, n + 2, 2]}]} for n in range(count)]


@given(st.lists(ENTRIES | st.none() | st.integers() | st.just([]), max_size=20))
def test_every_entry_is_a_row_with_a_key_of_its_own_and_pictures_stay_together(values: list[Any]) -> None:
    rows = planned(values)
    assert sorted(row.place for row in rows) == list(range(len(values)))
    assert [row.entry for row in sorted(rows, key=lambda row: row.place)] == values
    assert len({row.key for row in rows}) == len(rows)
    names = [row.entry["image"] for row in rows if isinstance(row.entry, dict)]
    runs = [name for place, name in enumerate(names) if place == 0 or names[place - 1] != name]
    assert len(runs) == len(set(names))


def test_keys_do_not_depend_on_place_or_origin_but_on_what_is_asked() -> None:
    one = {"image": "a.png", "regions": [{"box": [0, 0, 2, 2]}], "id": 1}
    (alone,) = planned([one])
    assert planned([boxes(1, 1)[0], {**one, "origin": {"area": 4}}])[1].key == alone.key
    for change in (
        {"question": "What is <Prompt0>?"},
        {"id": 2},
        {"image": "b.png"},
        {"regions": [{"box": [0, 0, 2, 3]}]},
    ):
        assert planned([{**one, **change}])[0].key != alone.key


def test_equal_rows_are_counted_and_keep_their_keys_where_others_come_between() -> None:
    one = boxes(1, 1)[0]
    assert [row.key for row in planned([one, one, one])] == [
        row.key for row in planned([one, {"image": "z.png"}, one, one]) if row.entry == one
    ]


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    values = boxes(100, 7)
    with Gathered(Entry("jobs.json", place, value) for place, value in enumerate(values)) as gathered:
        plan = gathered.write(tmp_path / "plan")
    assert Plan.read(tmp_path / "plan") == plan
    assert plan.rows == 100
    rows = [row for name in plan.parts for row in rows_in(plan.folder / f"{name}.jsonl")]
    assert Counter(str(row.entry) for row in rows) == Counter(map(str, values))
    assert Plan.read(tmp_path / "none") is None


def test_what_is_finished_is_left_out(tmp_path: Path) -> None:
    values = boxes(80, 8)
    keys = [row.key for row in planned(values)]
    with Gathered(Entry("jobs.json", place, value) for place, value in enumerate(values)) as gathered:
        gathered.leave_out([*keys[::2], "unknown"])
        plan = gathered.write(tmp_path / "plan")
    rows = [row for name in plan.parts for row in rows_in(plan.folder / f"{name}.jsonl")]
    assert [row.key for row in rows] == keys[1::2]


def test_a_sample_is_spread_over_the_pictures() -> None:
    with Gathered(Entry("j", place, value) for place, value in enumerate(boxes(600, 60))) as gathered:
        sample = gathered.sample(6)
    pictures = [int(row.entry["image"].removesuffix(".png")) for row in sample]
    assert Counter(pictures) == dict.fromkeys(range(5, 60, 10), 4)


@pytest.mark.parametrize("text", ["", "[]", '{"parts": {}}', "{"])
def test_a_damaged_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(GarError, match=r"plan\.json"):
        Plan.read(tmp_path)


def test_an_entry_with_an_error_becomes_a_job_that_fails() -> None:
    row = PlannedRow("k", "a.json", 3, None, "a.json: no JSON")
    assert isinstance(row.job().field, GarPromptError)
    assert row.job().key == "k"
