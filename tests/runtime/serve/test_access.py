"""Who may ask: keys, names, pages of other servers, and addresses that others reach."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.serving import Running, serving, started

from gar_edge.runtime.bundle.shipped import SHIPPED
from gar_edge.runtime.errors import GarError
from gar_edge.runtime.serve.access import Access, is_loopback, key_digest, names_of, origins_of, read_keys
from gar_edge.runtime.serve.api_errors import ApiError

KEY, OTHER = "0123456789abcdef0123", "another-key-of-a-robot"
COMMAND = [sys.executable, "-m", "gar_edge.runtime.cli.serve"]


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    settings = {"keys": {"arm": KEY, "base": OTHER}, "limits": {"per_key": 2}, "step": 0.02}
    with serving(**settings, hosts=["robot.example"], origins=["https://planner.example"]) as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "given", [{}, bearer("wrong"), bearer(""), {"Authorization": f"Basic {KEY}"}, bearer(KEY[:-1])]
)
def test_without_a_key_nothing_is_answered(locked: Running, given: dict[str, str]) -> None:
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/metrics")):
        reply = locked.ask(method, path, {} if method == "POST" else None, given)
        assert reply.status == 401
        assert reply.error["code"] == "invalid_api_key"
        assert reply.headers["www-authenticate"] == "Bearer"
    assert locked.ask("GET", "/healthz", headers=given).status == 200  # of no use to a stranger


def test_each_key_is_known_by_its_name(locked: Running) -> None:
    assert locked.ask("GET", "/v1/models", headers=bearer(OTHER) | {"X-Request-ID": "who"}).status == 200
    assert locked.line(request="who")["owner"] == "base"
    assert OTHER not in str(locked.lines)


def test_scenes_belong_to_their_key(locked: Running) -> None:
    locked.headers.update(bearer(KEY))
    try:
        key = locked.open()
    finally:
        locked.headers.clear()
    assert locked.ask("GET", f"/v1/scenes/{key}", headers=bearer(KEY)).status == 200
    assert locked.ask("GET", f"/v1/scenes/{key}", headers=bearer(OTHER)).status == 404
    assert locked.ask("DELETE", f"/v1/scenes/{key}", headers=bearer(OTHER)).status == 404


def test_a_key_has_a_limit_of_its_own(locked: Running) -> None:
    """Three questions in a request are more than a key may have here; another key's are not counted."""
    locked.headers.update(bearer(KEY))
    try:
        key = locked.open()
        region = {"box": [5, 5, 60, 60]}
        body = {"regions": [region, region, region]}
        assert "3 questions" in locked.post(f"/v1/scenes/{key}/describe", body).error["message"]
        assert locked.post(f"/v1/scenes/{key}/describe", {"regions": [region, region]}).status == 200
    finally:
        locked.headers.clear()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "robot.example"}, 200),
        ({"Host": "ROBOT.example:8080"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "192.168.7.7:8080"}, 200),
        ({"Host": "[::1]:8080"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "https://planner.example"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://planner.example"}, 403),
        ({"Host": "robot.example", "Origin": "https://robot.example"}, 200),
        ({"Host": "robot.example", "Origin": "https://robot.example.evil"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
    ],
)
def test_pages_of_others_cannot_ask(locked: Running, headers: dict[str, str], status: int) -> None:
    assert locked.ask("GET", "/v1/models", headers=bearer(KEY) | headers).status == status


def test_a_link_may_lead_to_the_page(locked: Running) -> None:
    assert locked.ask("GET", "/healthz", headers={"Sec-Fetch-Site": "cross-site"}).status == 200


def test_an_allowed_page_is_told_so(locked: Running) -> None:
    asked = {"Origin": "https://planner.example", "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization,content-type,x-stainless-lang"  # as OpenAI's client
    reply = locked.ask("OPTIONS", "/v1/chat/completions", headers=asked)
    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == "https://planner.example"
    refused = locked.ask("OPTIONS", "/v1/chat/completions", headers=asked | {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in refused.headers
    told = locked.ask("GET", "/v1/models", headers=bearer(KEY) | {"Origin": "https://planner.example"})
    assert told.headers["access-control-allow-origin"] == "https://planner.example"
    assert "cross-origin-resource-policy" not in told.headers


def test_every_answer_has_headers_that_keep_browsers_from_guessing(locked: Running) -> None:
    for reply in (locked.ask("GET", "/healthz"), locked.ask("GET", "/v1/models"), locked.ask("GET", "/none")):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["x-request-id"]
        assert "server" not in reply.headers


@pytest.mark.parametrize("given", ["short", "a b c", "# nothing but this", "", "schlüssel-aus-umlauten"])
def test_files_that_hold_no_keys(tmp_path: Path, given: str) -> None:
    file = tmp_path / "keys"
    file.write_text(given, encoding="utf-8")
    file.chmod(0o600)
    with pytest.raises(GarError, match="key"):
        read_keys(file)


def test_keys_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# robots\narm {KEY}\n\n{OTHER}\n")
    file.chmod(0o600)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_keys(file) == {key_digest(KEY): "arm", key_digest(OTHER): "key 4"}
    file.chmod(0o644)
    with pytest.warns(UserWarning, match="chmod 600"):
        read_keys(file)
    with pytest.raises(GarError, match="cannot be read"):
        read_keys(tmp_path / "none")


def test_a_key_is_known_whatever_stands_around_it() -> None:
    access = Access({key_digest(KEY): "arm"})
    assert access.owner({"authorization": f"bearer   {KEY} "}, "10.0.0.1") == "arm"
    with pytest.raises(ApiError):
        access.owner({"authorization": KEY}, "10.0.0.1")
    assert Access().owner({}, "10.0.0.1") == "10.0.0.1"
    assert KEY not in repr(access)


def test_origins() -> None:
    assert origins_of(["HTTPS://Robot.example/", "http://10.0.0.5:3000"]) == {
        "https://robot.example",
        "http://10.0.0.5:3000",
    }
    for wrong in ("robot.example", "https://", "ftp://robot.example", "https://robot.example/page"):
        with pytest.raises(GarError, match="no origin"):
            origins_of([wrong])


def test_names() -> None:
    assert names_of(["Robot.example:8080", "arm.", "10.0.0.5"]) == {"robot.example", "arm", "10.0.0.5"}
    for wrong in ("https://robot.example", "a b", ""):
        with pytest.raises(GarError, match="no host's name"):
            names_of([wrong])


def test_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "robot", "127.0.0.1.example")))


def test_another_address_needs_a_key() -> None:
    done = subprocess.run([*COMMAND, "--host", "0.0.0.0", "--port", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--api-key-file" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_that_is_taken(locked: Running) -> None:
    command = [*COMMAND, "--port", str(locked.address[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "--port" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n")
    file.chmod(0o600)
    command = [*COMMAND, "-m", str(SHIPPED), "--host", "0.0.0.0", "--port", "0", "--api-key-file", str(file)]
    with started(command) as running:
        assert running.url.startswith("http://127.0.0.1:")
        assert running.ask("GET", "/v1/models").status == 401
        assert running.ask("GET", "/v1/models", headers=bearer(KEY)).status == 200
        assert running.ask("GET", "/readyz").json["status"] == "ready"
        assert running.stop() == 0
        assert [line["event"] for line in running.lines if "event" in line] == ["started", "stopping", "stopped"]
