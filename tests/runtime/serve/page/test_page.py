"""The page as a whole: pictures, keyboard, phone, light and dark, its policy, the API's description."""

from __future__ import annotations

import base64
import json
import re
import urllib.request
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from helpers.page_driver import EXAMPLES, PageDriver
from helpers.serving import serving
from PIL import Image

from gar_edge.runtime import Box
from gar_edge.runtime.scene import Scene

COLOUR = "What colour is <Prompt0>?"
CONTROLS = "button|textbox|checkbox|radio|slider|spinbutton|link|application"
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}


def encoded(image: Image.Image, form: str, **how: Any) -> bytes:
    file = BytesIO()
    image.save(file, form, **how)
    return file.getvalue()


def transferred(driver: PageDriver, event: str, name: str, kind: str, data: bytes) -> None:
    """Drop or paste a file."""
    driver.page.evaluate(
        """([event, name, kind, data]) => {
            const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type: kind }));
            const how = { bubbles: true, cancelable: true };
            document.querySelector('#stage').dispatchEvent(event === 'paste'
                ? new ClipboardEvent(event, { ...how, clipboardData: transfer })
                : new DragEvent(event, { ...how, dataTransfer: transfer }));
        }""",
        [event, name, kind, base64.b64encode(data).decode()],
    )


# Pictures.


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(page: PageDriver, shapes: Scene, event: str) -> None:
    page.size = (239, 170)
    transferred(page, event, "scene.png", "image/png", (EXAMPLES / "scene_1.png").read_bytes())
    page.page.wait_for_selector("#canvas")
    page.box(164, 15, 224, 68)
    assert page.ask(COLOUR) == [shapes.ask(COLOUR, {0: Box(164, 15, 224, 68)}).text] == ["green"]


def test_a_file_that_is_no_picture_is_refused(page: PageDriver) -> None:
    transferred(page, "drop", "notes.txt", "text/plain", b"no picture")
    page.until(lambda: page.problem == "That is not a picture file.")
    page.page.get_by_label("Close this message").click()
    assert page.problem == ""
    transferred(page, "drop", "broken.png", "image/png", b"\x89PNG\r\n\x1a\nbroken")
    page.until(lambda: page.problem == "That cannot be read as a picture. PNG, JPEG and WebP can.")
    assert page.page.is_visible("#start")
    assert page.sent == [("GET", "v1/models", "")]


def test_a_photograph_that_its_exif_turns_is_upright(page: PageDriver) -> None:
    """A camera held upright: the pixels lie on their side, orientation 6 says so."""
    upright = Image.open(EXAMPLES / "scene_1.png").convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)
    assert Image.open(BytesIO(data)).size == (170, 239)
    page.picture("photo.jpg", data, upright.size, kind="image/jpeg")
    page.box(164, 15, 224, 68)
    assert page.ask(COLOUR) == ["green"]
    box = page.page.locator("#canvas").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(239 / 170, rel=0.01)
    assert [path for method, path, _ in page.sent if method == "POST"].count("v1/scenes") == 1  # as it was


def test_a_picture_that_the_server_turns_otherwise_is_sent_as_it_is_seen(page: PageDriver) -> None:
    """Stands for any such difference: the server's answer is made to say that the sides are swapped."""

    def swapped(route: Any) -> None:
        response = route.fetch()
        told = response.json()
        route.fulfill(response=response, json=told | {"width": told["height"], "height": told["width"]})

    page.page.route("**/v1/scenes", swapped, times=1)
    page.bare("scene_1.png")
    page.until(lambda: [path for method, path, _ in page.sent if method == "POST"].count("v1/scenes") == 2)
    page.box(164, 15, 224, 68)
    assert page.ask(COLOUR) == ["green"]


def test_another_format_becomes_png(page: PageDriver) -> None:
    image = Image.open(EXAMPLES / "scene_1.png").convert("RGB").quantize(64)
    page.picture("scene.gif", encoded(image, "GIF"), image.size, kind="image/gif")
    assert ("POST", "v1/scenes", "image/png") in page.sent
    page.box(164, 15, 224, 68)
    assert page.ask(COLOUR) == ["green"]


def test_a_picture_beyond_the_servers_limits_is_made_smaller(browser: Any) -> None:
    with serving(limits={"pixels": 10_000}) as small:
        page = PageDriver(browser.new_context().new_page(), small.url + "/")
        page.bare("scene_1.png")
        width, height = page.scene["width"], page.scene["height"]
        assert 9_000 < width * height <= 10_000
        assert width / height == pytest.approx(239 / 170, rel=0.02)
        assert f"it was made {width} x {height}" in page.page.inner_text("#said")
        page.size = (width, height)
        page.box(*(round(one * width / 239) for one in (164, 15, 224, 68)))
        assert page.ask(COLOUR) == ["green"]
        page.check()
        page.page.context.close()


# Keyboard, phone, light and dark.


def test_everything_by_keyboard_alone(page: PageDriver) -> None:
    """Tab to an example, draw a box by arrows, ask, follow up, copy: no mouse."""
    keys = page.page.keyboard

    def tab_to(wanted: str, *, back: bool = False) -> None:
        for _ in range(80):
            if page.page.evaluate("(wanted) => document.activeElement.matches(wanted)", wanted):
                return
            keys.press("Shift+Tab" if back else "Tab")
        raise AssertionError(f"no way to {wanted}")

    tab_to(".example:nth-child(1)")
    keys.press("Enter")
    page.page.wait_for_selector("#canvas")
    tab_to("#tool-box")
    keys.press("Enter")
    tab_to("#canvas")
    keys.press("Space")
    for _ in range(5):
        keys.press("ArrowRight")
        keys.press("ArrowDown")
    keys.press("Space")
    assert page.regions[-1] == "5 box"
    tab_to("#cards li:last-child .remove")
    keys.press("Space")
    assert len(page.regions) == 5
    tab_to("input[name=mode]:checked")
    keys.press("ArrowRight")
    assert page.page.inner_text("#go") == "Describe"
    keys.press("ArrowLeft")
    keys.press("/")
    keys.press("Control+a")
    keys.type(COLOUR)
    keys.press("Enter")
    assert page.answered() == ["pink"]
    tab_to("#answers button")
    keys.press("Enter")
    keys.type("What shape is <Prompt0>?")
    keys.press("Enter")
    page.until(lambda: page.page.locator("#answers > li").count() == 2)
    assert page.answered() == ["star"]
    keys.press("Tab")
    page.page.evaluate("document.activeElement.blur()")
    keys.press("?")
    assert page.page.is_visible("#keys-dialog")
    keys.press("Escape")
    assert page.page.is_hidden("#keys-dialog")


def test_every_control_has_a_name(page: PageDriver) -> None:
    page.example("Shapes")
    page.ask(COLOUR)
    page.tool("points")
    page.page.click(".options summary")
    for mode in ("ask", "describe", "choose"):
        page.mode(mode)
        tree = page.page.locator("body").aria_snapshot()
        unnamed = re.findall(rf"^ *- '?(?:{CONTROLS})\b(?! \").*", tree, re.MULTILINE)
        assert unnamed == []
    assert 'application "The picture: draw regions here"' in tree


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("context", [{}, PHONE], ids=["desk", "phone"])
def test_all_text_can_be_read(tab: Callable[..., PageDriver], scheme: str, context: dict[str, Any]) -> None:
    """WCAG's contrast of 4.5 for all text outside the picture, and nothing wider than the window."""
    page = tab(**context, color_scheme=scheme)
    page.example("Shapes")
    page.page.click(".options summary")
    page.page.check("#sure")
    page.mode("describe")
    page.ask()
    page.mode("choose")
    page.page.fill("#choices", "star, moon")
    page.ask("What shape is <Prompt4>?")
    poor = page.page.evaluate(
        """() => {
            const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
            const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
            const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
            const behind = (one) => {
                for (; one; one = one.parentElement) {
                    const ground = parts(getComputedStyle(one).backgroundColor);
                    if (ground.length === 3 || ground[3] === 1) return ground;
                }
            };
            const poor = [];
            for (const one of document.querySelectorAll('body *')) {
                const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
                if (!own || !one.checkVisibility() || one.matches(':disabled, :disabled *, .badge, option')) continue;
                const pair = [light(parts(getComputedStyle(one).color)), light(behind(one))].sort((a, b) => b - a);
                const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
                if (contrast < 4.5) poor.push([one.outerHTML.slice(0, 80), contrast]);
            }
            return poor;
        }"""
    )
    assert poor == []
    assert page.page.evaluate("document.documentElement.scrollWidth") <= page.page.viewport_size["width"]


def test_light_and_dark_follow_the_system_until_chosen(tab: Callable[..., PageDriver]) -> None:
    page = tab(color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.page.evaluate(ground)
    button = page.page.locator("#theme")
    button.click()
    assert button.inner_text() == "Light"
    assert page.page.evaluate(ground) != dark
    page.page.reload()
    assert page.page.evaluate(ground) != dark
    button.click()
    assert page.page.evaluate(ground) == dark
    button.click()
    assert button.inner_text() == "Auto"
    page.page.emulate_media(color_scheme="light")
    assert page.page.evaluate(ground) != dark


def test_a_phone_offers_its_camera(tab: Callable[..., PageDriver], page: PageDriver) -> None:
    phone = tab(**PHONE)
    assert phone.page.get_by_role("button", name="Take a photo").is_visible()
    assert phone.page.get_attribute("#camera", "capture") == "environment"
    assert page.page.get_by_role("button", name="Take a photo").is_hidden()
    with Image.open(EXAMPLES / "scene_1.png") as image:
        phone.size = image.size
    phone.page.set_input_files("#camera", EXAMPLES / "scene_1.png")
    phone.page.wait_for_selector("#canvas")
    phone.box(164, 15, 224, 68)
    assert phone.ask(COLOUR) == ["green"]


# Policy, prefix, description.


def test_the_policy_forbids_what_the_page_does_not_need(page: PageDriver) -> None:
    """And that its breaches are seen here: one on purpose."""
    with urllib.request.urlopen(page.url) as response:
        policy = response.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    page.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">no</p>')")
    page.until(lambda: page.page.evaluate("window.violations.length") == 1)
    page.page.evaluate("window.violations = []")
    page.expected.append("Content Security Policy")


def test_it_works_behind_a_prefix(page: PageDriver) -> None:
    """As behind a proxy that serves it at /robot/: here the browser's own requests are answered so."""
    asked: list[str] = []
    url = page.url

    def proxied(route: Any) -> None:
        asked.append(route.request.url)
        route.fulfill(response=route.fetch(url=route.request.url.replace("/robot/", "/")))

    page.page.route("**/*", proxied)
    page.page.goto(url + "robot/")
    page.page.wait_for_selector(".example")
    page.example("Shapes")
    assert page.ask(COLOUR) == ["pink"]
    page.page.get_by_role("link", name="API").click()
    page.page.wait_for_selector(".operation")
    assert asked
    assert all(one.startswith(url + "robot/") for one in asked)


def test_the_description_lists_all_that_the_api_has(page: PageDriver) -> None:
    with urllib.request.urlopen(page.url + "openapi.json") as response:
        described = json.load(response)
    page.page.get_by_role("link", name="API").click()
    page.page.wait_for_selector(".operation")
    operations = [f"{method.upper()}{path}" for path, methods in described["paths"].items() for method in methods]
    assert page.page.locator("#operations h2").all_text_contents() == operations
    assert page.page.locator("#schemas h3").all_text_contents() == list(described["components"]["schemas"])
    ask = page.page.locator("#post-v1-scenes-key-ask")
    fields = described["components"]["schemas"]["Ask"]["properties"]
    assert ask.locator(".fields-table").last.locator("th code").all_text_contents() == list(fields)
    links = page.page.locator("#operations a, #schemas a").evaluate_all(
        "(all) => all.map((one) => one.getAttribute('href'))"
    )
    assert links
    assert page.page.evaluate("(all) => all.filter((one) => document.querySelector(one) === null)", links) == []
