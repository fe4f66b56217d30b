"""Draws docs/serve.png; with --also FOLDER the page in the dark, on a phone and as it opens too, and the API's list.

    python tests/generate_serve_screenshot.py [--also FOLDER]

Needs Chromium and `pip install playwright`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from helpers.page_driver import FLAGS, PageDriver
from helpers.serving import serving
from PIL import Image
from playwright.sync_api import sync_playwright

DESK = {"viewport": {"width": 1280, "height": 880}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}
FILE = Path(__file__).parents[1] / "docs" / "serve.png"


def talk(driver: PageDriver) -> None:
    """Some regions, each drawn with another tool, and questions about them."""
    driver.bare("scene_1.png")
    driver.box(76, 19, 128, 76)
    driver.tool("points")
    driver.page.keyboard.press("n")
    driver.click(195, 48)
    driver.tool("polygon")
    for x, y in (
        (175, 117),
        (182, 131),
        (193, 133),
        (184, 142),
        (187, 155),
        (173, 149),
        (160, 154),
        (164, 141),
        (156, 130),
        (167, 131),
    ):
        driver.page.mouse.click(*driver.at(x, y))
    driver.page.focus("#canvas")
    driver.page.keyboard.press("Enter")
    driver.settled()
    driver.page.click(".options summary")
    driver.page.check("#sure")
    driver.page.click(".options summary")
    driver.mode("choose")
    driver.page.fill("#choices", "star, triangle, moon")
    driver.ask("What shape is <Prompt2>?")
    driver.mode("describe")
    driver.page.get_by_label("Describe region 1").uncheck()
    driver.page.get_by_label("Describe region 2").uncheck()
    driver.ask()
    driver.mode("ask")
    driver.ask("Is <Prompt1> larger or smaller than <Prompt2>?")
    driver.tool("box")
    driver.page.evaluate("document.activeElement.blur()")
    driver.page.evaluate("scrollTo(0, 0)")
    driver.page.wait_for_timeout(300)


def save(picture: bytes, path: Path) -> None:
    """As a palette, which is a third of the size."""
    image = Image.open(BytesIO(picture)).convert("RGB").quantize(255, dither=Image.Dither.NONE)
    image.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--also", type=Path, metavar="FOLDER")
    also = parser.parse_args().also
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        with serving() as server:

            def opened(**context: Any) -> PageDriver:
                return PageDriver(chromium.new_context(**context).new_page(), server.url + "/")

            page = opened(**DESK)
            talk(page)
            save(page.page.screenshot(), FILE)
            if also is not None:
                also.mkdir(parents=True, exist_ok=True)
                for name, context in {"dark": {**DESK, "color_scheme": "dark"}, "phone": PHONE}.items():
                    page = opened(**context)
                    save(page.page.screenshot(), also / f"{name}-start.png")
                    talk(page)
                    save(page.page.screenshot(full_page=name == "phone"), also / f"{name}.png")
                page.page.goto(f"{server.url}/docs")
                page.page.wait_for_selector(".operation")
                save(page.page.screenshot(), also / "phone-api.png")
        chromium.close()


if __name__ == "__main__":
    main()
