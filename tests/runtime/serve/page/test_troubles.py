"""What goes wrong is said: keys, a busy server, refusals, streams that break off."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.needs import CURL
from helpers.page_driver import EXAMPLES, PageDriver
from helpers.serving import serving

COLOUR = "What colour is <Prompt0>?"
KEY = "correct-horse-battery-staple-0123456789"


def error(status: int, message: str, **headers: str) -> dict[str, Any]:
    """A refusal as the server words it, for `route.fulfill`."""
    told = {"error": {"message": message, "type": "rate_limit_error", "param": None, "code": None}}
    return {"status": status, "json": told, "headers": headers}


@pytest.fixture(scope="module")
def locked() -> Iterator[str]:
    """The address of a server that asks for a key."""
    with serving(keys={"robot": KEY}) as running:
        yield running.url + "/"


@pytest.fixture
def asking(page: PageDriver) -> PageDriver:
    """An example, with a question to be asked."""
    page.example("Shapes")
    page.settled()
    return page


@pytest.fixture
def profile(browser: Any) -> Iterator[Any]:
    """A profile of the browser whose pages may use the clipboard."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(10_000)
    yield context
    context.close()


def unlocked(profile: Any, address: str) -> Any:
    """The page once it has its key, with the first example's first question answered."""
    page = profile.new_page()
    page.goto(address)
    page.wait_for_selector("#key-dialog[open]")
    page.fill("#key", KEY)
    page.keyboard.press("Enter")
    page.click(".example >> nth=0")
    page.click("#go")
    page.wait_for_selector("#answers > li:first-child .parts[aria-busy=false]")
    assert page.inner_text("#answers .said") == "pink"
    return page


def test_a_key_is_asked_for_until_it_is_right(profile: Any, locked: str) -> None:
    page = profile.new_page()
    page.goto(locked)
    page.wait_for_selector("#key-dialog[open]")
    assert page.is_hidden("#key-refused")
    page.fill("#key", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#key-refused:visible")
    page.fill("#key", KEY)
    page.click("#key-dialog button[value=use]")
    page.wait_for_selector(".example")


def test_a_key_is_kept_for_its_tab_alone(profile: Any, locked: str) -> None:
    page = unlocked(profile, locked)
    page.reload()
    page.wait_for_selector(".example")
    assert page.is_hidden("#key-dialog")
    assert KEY not in page.content()
    other = profile.new_page()
    other.goto(locked)
    other.wait_for_selector("#key-dialog[open]")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        pytest.param("curl", ["sh", "-c"], marks=pytest.mark.skipif(shutil.which("curl") is None, reason=CURL)),
        ("Python", [sys.executable, "-c"]),
    ],
)
def test_what_is_copied_takes_the_key_from_the_environment(
    profile: Any, locked: str, tmp_path: Path, name: str, command: list[str]
) -> None:
    page = unlocked(profile, locked)
    shutil.copy(EXAMPLES / "scene_1.png", tmp_path / "photo.png")
    page.click(f"[aria-label='Copy as {name}']")
    page.wait_for_selector(f"#answers >> text={name} copied.")
    text = page.evaluate("navigator.clipboard.readText()")
    assert KEY not in text

    def run(key: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "GAR_KEY": key}
        return subprocess.run(
            [*command, text], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    assert "pink" in run(KEY).stdout
    assert run("wrong").returncode != 0


def test_leaving_the_key_out_is_said(profile: Any, locked: str) -> None:
    page = profile.new_page()
    page.goto(locked)
    page.wait_for_selector("#key-dialog[open]")
    page.click("#key-dialog button[value=leave]")
    page.wait_for_selector("#problem:visible")
    assert "key" in page.inner_text("#problem")


def test_a_busy_server_is_asked_once_more(asking: PageDriver) -> None:
    asking.expected.append("429")
    asking.page.route(
        "**/ask", lambda route: route.fulfill(**error(429, "too many wait", **{"Retry-After": "1"})), times=1
    )
    asking.page.fill("#question", COLOUR)
    asking.page.click("#go")
    asking.until(lambda: asking.page.inner_text("#status") == "The server is busy; trying again in 1 s.")
    assert asking.answered() == ["pink"]
    assert [path.rsplit("/")[-1] for _, path, _ in asking.sent].count("ask") == 2


def test_a_server_that_stays_busy_is_said(asking: PageDriver) -> None:
    asking.expected.append("429")
    asking.page.route("**/ask", lambda route: route.fulfill(**error(429, "too many wait", **{"Retry-After": "1"})))
    assert asking.ask(COLOUR) == [""]
    assert "too many wait" in asking.card.locator(".problem").inner_text()
    assert [path.rsplit("/")[-1] for _, path, _ in asking.sent].count("ask") == 2


def test_waiting_can_be_stopped(asking: PageDriver) -> None:
    asking.expected.append("429")
    asking.page.route("**/ask", lambda route: route.fulfill(**error(429, "too many wait", **{"Retry-After": "50"})))
    asking.page.click("#go")
    asking.until(lambda: "trying again in 50 s" in asking.page.inner_text("#status"))
    asking.page.click("#stop")
    assert asking.answered() == [""]
    assert "Stopped." in asking.card.inner_text()


def test_what_the_server_refuses_is_said_in_its_words(asking: PageDriver) -> None:
    """A word that the model reserves: only the server knows."""
    asking.expected.append("400")
    assert asking.ask(f"{COLOUR} <|image|>") == [""]
    said = "the question contains <|image|>, which the model reserves; remove it"
    assert asking.card.locator(".problem").inner_text() == said


def test_what_cannot_be_cut_out_is_said_at_the_region(asking: PageDriver) -> None:
    asking.expected.append("400")
    asking.page.route("**/outline", lambda route: route.fulfill(**error(400, "the region is empty")))
    asking.box(10, 100, 60, 150)
    asking.until(lambda: "the region is empty" in asking.page.inner_text("#cards li:last-child"))


def test_a_server_that_is_gone_is_said(asking: PageDriver) -> None:
    asking.expected.append("ERR_FAILED")
    asking.page.route("**/ask", lambda route: route.abort())
    assert asking.ask(COLOUR) == [""]
    assert asking.card.locator(".problem").inner_text() == "The server cannot be reached. Is gar-serve still running?"


def stream(*events: tuple[str, Any]) -> dict[str, Any]:
    """A stream, whole, for `route.fulfill`."""
    body = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
    return {"status": 200, "headers": {"Content-Type": "text/event-stream"}, "body": body}


def test_a_stream_that_breaks_off_is_said(asking: PageDriver) -> None:
    asking.page.route("**/ask", lambda route: route.fulfill(**stream(("text", {"index": 0, "text": "pi"}))))
    assert asking.ask(COLOUR) == ["pi"]
    assert "The answer broke off." in asking.card.inner_text()


def test_errors_and_warnings_within_a_stream(asking: PageDriver) -> None:
    """Of three descriptions one fails, then the rest of the request."""
    told = {"message": "no memory for this one", "type": "server_error", "param": None, "code": None}
    events = [
        ("warning", {"text": "<b>mask</b> was resized"}),
        ("text", {"index": 1, "text": "A star"}),
        ("error", {"index": 0, "error": told}),
        ("error", {"error": told | {"message": "the server is stopping"}}),
        ("end", {}),
    ]
    asking.page.route("**/describe", lambda route: route.fulfill(**stream(*events)))
    asking.mode("describe")
    assert asking.ask() == ["", "A star", "", "", ""]
    assert asking.card.locator(".part").first.locator(".problem").inner_text() == "no memory for this one"
    assert asking.card.locator("> .problem").inner_text() == "the server is stopping"
    assert asking.card.locator(".notes").inner_text() == "<b>mask</b> was resized"  # text, never markup


EVENTS = (
    ": a comment\n\n"
    "event: text\ndata: one\n\n"
    "data: two\ndata: lines\n\n"
    "event: text\r\ndata:no space\r\n\r\n"
    "event: text\rdata:  two spaces\r\r"
    "data\n\n"
    "id: 7\nretry: 10000000\nevent: text\ndata: é ☃ 🤖 \u2028 end\n\n"
    "event: text\n\n"
    'data: {"a": "b: c"}\n\n'
    "event: text\ndata: cut off"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_read_as_the_browser_reads_them(page: PageDriver, size: int) -> None:
    """Chromium's own EventSource reads the same text; ours gets it in pieces of so many bytes."""
    page.page.route(
        "**/events", lambda route: route.fulfill(status=200, headers={"Content-Type": "text/event-stream"}, body=EVENTS)
    )
    own, theirs = page.page.evaluate(
        """async ([text, size]) => {
            const { eventsOf } = await import(new URL('page/sse.js', document.baseURI));
            const bytes = new TextEncoder().encode(text);
            const body = new ReadableStream({ start(stream) {
                for (let at = 0; at < bytes.length; at += size) stream.enqueue(bytes.slice(at, at + size));
                stream.close();
            } });
            const own = [];
            for await (const { event, data } of eventsOf(body)) own.push([event, data]);
            const theirs = [];
            await new Promise((resolve) => {
                const source = new EventSource('events');
                for (const name of ['message', 'text']) {
                    source.addEventListener(name, ({ type, data }) => theirs.push([type, data]));
                }
                source.onerror = () => { source.close(); resolve(); };
            });
            return [own, theirs];
        }""",
        [EVENTS, size],
    )
    assert own == theirs
    assert len(own) == 7
