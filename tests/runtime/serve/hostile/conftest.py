"""A server with tight limits, which must go on answering whatever a test did to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.hostile import LIMITS
from helpers.serving import Running, mask, serving


@pytest.fixture(scope="module")
def guarded() -> Iterator[Running]:
    with serving(limits=LIMITS, queue=16) as running:
        yield running


@pytest.fixture(autouse=True)
def still_answers(guarded: Running) -> Iterator[None]:
    """Whatever a test did, the next question has its answer, and nothing unexpected was written down."""
    yield
    key = guarded.open()
    reply = guarded.post(
        f"/v1/scenes/{key}/ask", {"question": "What colour is <Prompt0>?", "regions": [mask("scene_1", 0)]}
    )
    assert reply.status == 200
    assert not [line for line in guarded.lines if "error" in line]
