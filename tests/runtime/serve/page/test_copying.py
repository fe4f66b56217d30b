"""What "copy as" puts on the clipboard runs as it is, and gives the answer that the page showed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.needs import CURL
from helpers.page_driver import EXAMPLES, PageDriver


def copied(driver: PageDriver, name: str) -> str:
    """What a card's button puts on the clipboard."""
    driver.card.get_by_role("button", name=f"Copy as {name}").click()
    driver.until(lambda: f"{name} copied." in driver.card.inner_text())
    return driver.page.evaluate("navigator.clipboard.readText()")


def run(text: str, name: str, folder: Path, picture: str) -> list[str]:
    """What the pasted text says: the answers' texts."""
    shutil.copy(EXAMPLES / picture, folder / "photo.png")
    command = ["sh", "-c", text] if name == "curl" else [sys.executable, "-c", text]
    environment = {**os.environ, "GAR_KEY": "left alone"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    if name == "Python":
        return done.stdout.splitlines()
    return [answer["text"] for answer in json.loads(done.stdout)["answers"]]


@pytest.fixture
def page(tab: Callable[..., PageDriver]) -> PageDriver:
    return tab(permissions=["clipboard-read", "clipboard-write"])


NEEDS_CURL = pytest.mark.skipif(shutil.which("curl") is None, reason=CURL)


@pytest.mark.parametrize("name", [pytest.param("curl", marks=NEEDS_CURL), "Python"])
def test_what_is_copied_runs_and_says_the_same(page: PageDriver, tmp_path: Path, name: str) -> None:
    """A question, a choice, descriptions with odd options, a painted mask, and a question with quotes of all kinds."""
    page.example("Shapes")
    for number in (0, 3, 4):
        page.page.locator("#ready .chip").nth(number).click()
        shown = page.ask()
        assert run(copied(page, name), name, tmp_path, "scene_1.png") == shown
    page.tool("brush")
    page.drag((180, 55), (205, 55))
    page.mode("ask")
    shown = page.ask('What\'s the "colour" of <Prompt5>, `really`, in $HOME \\n é ☃ ?')
    assert run(copied(page, name), name, tmp_path, "scene_1.png") == shown
    page.page.get_by_role("button", name="Follow up").first.click()
    shown = page.ask("What shape is <Prompt5>?")
    assert run(copied(page, name), name, tmp_path, "scene_1.png") == shown


def test_json_is_the_body_as_it_was_sent(page: PageDriver) -> None:
    page.example("Crosses")
    page.ask("What colour is <Prompt1>?")
    sent = page.last("ask")
    assert json.loads(copied(page, "JSON")) == {key: value for key, value in sent.items() if key != "stream"}


def test_without_a_clipboard_it_is_copied_the_old_way(tab: Callable[..., PageDriver]) -> None:
    """As on a page that came over plain HTTP from another machine."""
    page = tab(permissions=["clipboard-read"])
    page.page.evaluate("() => Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.example("Crosses")
    page.ask("What colour is <Prompt1>?")
    page.card.get_by_role("button", name="Copy as JSON").click()
    page.until(lambda: "JSON copied." in page.card.inner_text())
    other = page.page.context.new_page()
    other.goto(page.url)
    assert "What colour is <Prompt1>?" in other.evaluate("navigator.clipboard.readText()")
