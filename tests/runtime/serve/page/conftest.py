"""A browser, a server and the model itself, whose answers are the truth."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers.needs import CHROMIUM, from_dev
from helpers.page_driver import EXAMPLES, FLAGS, PageDriver, serving

from gar_edge.runtime import Gar
from gar_edge.runtime.scene import Scene


@pytest.fixture(scope="module")  # longer, and its event loop would be in the way of other modules' own
def browser() -> Iterator[Any]:
    """Debian's Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip(CHROMIUM)
    api = pytest.importorskip("playwright.sync_api", reason=from_dev("playwright"))
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def url(home: object) -> Iterator[str]:
    """The address of a gar-serve."""
    with serving() as address:
        yield address


@pytest.fixture
def tab(browser: Any, url: str) -> Iterator[Callable[..., PageDriver]]:
    """Opens tabs, each in a profile of its own, and holds them to the page's promises at the end."""
    opened = []

    def open_tab(address: str = url, **context: Any) -> PageDriver:
        context.setdefault("viewport", {"width": 1280, "height": 860})
        driver = PageDriver(browser.new_context(**context).new_page(), address)
        opened.append(driver)
        return driver

    yield open_tab
    for driver in opened:
        driver.check()
        driver.page.context.close()


@pytest.fixture
def page(tab: Callable[..., PageDriver]) -> PageDriver:
    """The page as it opens."""
    return tab()


@pytest.fixture(scope="session")
def gar(home: object) -> Iterator[Gar]:
    """The model that the server has, asked directly."""
    with Gar.load(threads=1) as gar:
        yield gar


@pytest.fixture
def shapes(gar: Gar) -> Scene:
    """The example with five shapes."""
    return gar.open(EXAMPLES / "scene_1.png")


@pytest.fixture
def crosses(gar: Gar) -> Scene:
    """The example with two crosses and a square."""
    return gar.open(EXAMPLES / "scene_2.png")
