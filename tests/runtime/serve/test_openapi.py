"""The API's description: the file in docs/ is what the server says, and what it says holds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from generate_cli_docs import OPENAPI, openapi
from helpers.serving import Running
from hypothesis import HealthCheck, Phase, given, seed, settings

EXAMPLES = 25  # of each operation, right and wrong
MOST_DRAWS = 10
OPERATIONS = [
    (method, path)
    for path, operations in json.loads(OPENAPI.read_text("utf-8"))["paths"].items()
    for method in operations
]


def test_the_file_is_what_the_server_says(server: Running) -> None:
    told = server.ask("GET", "/openapi.json").json
    assert told == openapi()
    assert told == json.loads(OPENAPI.read_text("utf-8")), "make docs writes it"


def test_every_operation_says_what_it_does() -> None:
    for path, operations in openapi()["paths"].items():
        for method, operation in operations.items():
            assert operation["description"], (method, path)


@pytest.fixture(scope="module")
def described(server: Running) -> Any:
    schemathesis = pytest.importorskip(
        "schemathesis", reason="schemathesis is not installed; pip install 'gar-edge[dev]' brings it"
    )
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.mark.parametrize(
    ("mode", "method", "path"),
    [("positive", method, path) for method, path in OPERATIONS]
    + [
        ("negative", method, path) for method, path in OPERATIONS if method == "post"
    ],  # others have nothing to be wrong
)
def test_whatever_is_asked_is_answered_as_described(
    server: Running, described: Any, mode: str, method: str, path: str
) -> None:
    """Schemathesis makes requests of the description: no server error, and no status or body that it does not have."""
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.core.errors import UnsupportedSchema
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    operation = described[path][method]
    scene = {"key": server.open()} if "{key}" in path else None
    cases = operation.as_strategy(generation_mode=GenerationMode(mode), path_parameters=scene)

    for number in range(MOST_DRAWS):

        @seed(number)
        @settings(
            max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=cases)
        def ask(case: Any) -> None:
            case.call_and_validate(checks=checks)

        try:
            return ask()
        except UnsupportedSchema:  # a draw that schemathesis then finds it cannot make; which, its sets' order decides
            continue
    raise AssertionError("schemathesis could make none of its draws")
