"""Rows as a table of Arrow's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gar_edge.runtime.label.entry import ORIGIN
from gar_edge.runtime.label.plan import PlannedRow

if TYPE_CHECKING:
    import pyarrow as pa

_BESIDE = ("confidence", "choices", "margin", "entropy", "logprobs")  # of checked answers


def schema() -> pa.Schema:
    """The columns.

    key; image, id, question: as in the input; regions, origin: JSON of the regions asked about and of what the input
    says beside; text; value, details: JSON, of checked answers (docs/structured.md); error: why there is no answer;
    tokens: ids; milliseconds: from the question to the answer's end, others' in between; source, place: where in the
    input.
    """
    import pyarrow as pa

    texts = (
        "key",
        "image",
        "id",
        "question",
        "regions",
        "origin",
        "text",
        "value",
        "details",
        "error",
        "finish_reason",
    )
    return pa.schema(
        [(name, pa.string()) for name in texts]
        + [("tokens", pa.list_(pa.int32())), ("prompt_tokens", pa.int32()), ("milliseconds", pa.float32())]
        + [("model", pa.string()), ("source", pa.string()), ("place", pa.int64())]
    )


def table_of(planned: list[PlannedRow], answers: dict[str, dict[str, Any]]) -> pa.Table:
    """The rows of a part in their order, with their answers by key."""
    import pyarrow as pa

    return pa.Table.from_pylist([row_of(row, answers[row.key]) for row in planned], schema=schema())


def row_of(row: PlannedRow, answer: dict[str, Any]) -> dict[str, Any]:
    """A row's columns by name, of the fields of its line in a journal."""
    entry = row.entry if isinstance(row.entry, dict) else {}
    value, details = answer.get("value"), {name: answer[name] for name in _BESIDE if name in answer}
    regions = entry.get("regions", entry.get("mask_rles"))
    return {
        "key": row.key,
        "image": _text(entry.get("image")),
        "id": _text(entry.get("id")),
        "question": _text(entry.get("question")),
        "regions": _json(regions),
        "origin": _json(entry.get(ORIGIN)),
        "text": _text(answer.get("text")),
        "value": _json(value),
        "details": _json(details or None),
        "error": _text(answer.get("error")),
        "finish_reason": answer.get("finish_reason"),
        "tokens": answer.get("tokens"),
        "prompt_tokens": answer.get("prompt_tokens"),
        "milliseconds": answer.get("timings_ms", {}).get("total"),
        "model": answer.get("model"),
        "source": _text(row.source),
        "place": row.place,
    }


def _text(value: Any) -> str | None:
    """Fit for Arrow, which takes no half of a surrogate pair."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "backslashreplace").decode()


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value)
