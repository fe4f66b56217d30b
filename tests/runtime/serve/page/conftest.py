"""A browser, and tabs in it that show the page of a server."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers.needs import CHROMIUM, from_dev
from helpers.page_driver import EXAMPLES, FLAGS, PageDriver
from helpers.serving import Running

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


@pytest.fixture
def tab(browser: Any, server: Running) -> Iterator[Callable[..., PageDriver]]:
    """Opens tabs, each in a profile of its own, and holds them to the page's promises at the end."""
    opened = []

    def open_tab(**context: Any) -> PageDriver:
        context.setdefault("viewport", {"width": 1280, "height": 860})
        driver = PageDriver(browser.new_context(**context).new_page(), server.url + "/")
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


@pytest.fixture
def shapes(direct: Gar) -> Scene:
    """The example with five shapes."""
    return direct.open(EXAMPLES / "scene_1.png")


@pytest.fixture
def drawing(page: PageDriver) -> PageDriver:
    """The first example's picture without its regions."""
    page.bare("scene_1.png")
    return page
