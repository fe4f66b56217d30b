"""The picture enlarged and moved about, by keys, wheel and fingers: drawn on in its own pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from helpers.page_driver import PageDriver, pixels

from gar_edge.runtime import Points
from gar_edge.runtime.scene import Scene

COLOUR = "What colour is <Prompt0>?"
WHAT = "What shape is <Prompt0>?"


def test_an_enlarged_picture_is_drawn_on_in_its_own_pixels(drawing: PageDriver, shapes: Scene) -> None:
    """Two steps of 1.5 about the middle, 119.5, 85; then the wheel goes to the right, by half of what is seen."""
    keys = drawing.page.keyboard
    keys.press("+")
    drawing.page.get_by_role("button", name="Larger").click()
    canvas = drawing.page.locator("#canvas").bounding_box()
    drawing.page.mouse.move(*drawing.at(119.5, 85))
    drawing.page.mouse.wheel(canvas["width"] / 2, 0)
    assert drawing.page.evaluate("scrollX") == 0
    left, upper = 119.5 - 119.5 / 2.25 + 239 / 4.5, 85 - 85 / 2.25

    def seen(x: float, y: float) -> tuple[float, float]:
        """Where a place of the picture is, as if all of it were seen."""
        return (x - left) * 2.25, (y - upper) * 2.25

    drawing.tool("box")
    drawing.drag(seen(150, 100), seen(200, 122))
    drawing.tool("points")
    keys.press("n")
    drawing.page.mouse.click(*drawing.at(*seen(174.5, 118.5)))
    drawing.ask("Is <Prompt0> larger or smaller than <Prompt1>?")
    sent = drawing.last("ask")["regions"]
    assert sent == {"0": {"box": [150, 100, 200, 122]}, "1": {"points": [[174, 118]]}}
    drawing.page.focus("#canvas")
    keys.press("0")
    assert drawing.ask(COLOUR.replace("0", "1")) == [shapes.ask(COLOUR, {0: Points([(174, 118)])}).text]
    drawing.box(164, 15, 224, 68)  # where all is seen again
    assert drawing.ask("What colour is <Prompt2>?") == ["green"]


def test_the_cross_stays_in_sight(drawing: PageDriver) -> None:
    """At 2.25 times 106 by 76 pixels are seen: going right and down moves on, until the corner is seen."""
    corner = pixels(drawing, [(238, 169), (2, 2)])
    drawing.page.keyboard.press("+")
    drawing.page.keyboard.press("+")
    drawing.page.focus("#canvas")
    for _ in range(40):
        drawing.page.keyboard.press("ArrowRight")
        drawing.page.keyboard.press("ArrowDown")
    drawing.until(lambda: drawing.page.inner_text("#cursor") == "x 239, y 170")
    drawing.page.evaluate("document.activeElement.blur()")
    drawing.page.wait_for_timeout(100)
    assert pixels(drawing, [(237, 168)]) == corner[:1]
    drawing.box(30, 30, 130, 100)
    drawing.page.fill("#question", COLOUR)
    drawing.ask()
    left, upper = 239 - 239 / 2.25, 170 - 170 / 2.25
    truth = [left + 30 / 2.25, upper + 30 / 2.25, left + 130 / 2.25, upper + 100 / 2.25]
    assert np.abs(np.subtract(drawing.last("ask")["regions"]["0"]["box"], truth)).max() <= 1


@pytest.fixture
def phone(tab: Callable[..., PageDriver]) -> PageDriver:
    driver = tab(viewport={"width": 390, "height": 844}, device_scale_factor=2, has_touch=True, is_mobile=True)
    driver.bare("scene_1.png")
    return driver


def test_two_fingers_enlarge_and_draw_nothing(phone: PageDriver) -> None:
    """They go from 40 pixels apart to 80 about 195, 48, and then by 20 to the left: twice as large, and moved."""
    fingers = phone.page.context.new_cdp_session(phone.page)

    def touch(kind: str, *apart: float, by: float = 0) -> None:
        places = [phone.at(195 + by + one, 48) for one in apart]
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    for tool in ("box", "points", "brush"):
        phone.tool(tool)
        touch("touchStart", -20)
        touch("touchStart", -20, 20)
        touch("touchMove", -40, 40)
        touch("touchMove", -40, 40, by=-20)
        touch("touchEnd")
        assert phone.regions == []
        for _ in range(6):
            phone.page.get_by_role("button", name="Smaller").click()
    touch("touchStart", -20)
    touch("touchStart", -20, 20)
    touch("touchMove", -40, 40)
    touch("touchMove", -40, 40, by=-20)
    touch("touchEnd")
    phone.tool("points")
    phone.page.touchscreen.tap(*phone.at(175, 48))  # where what lay between the fingers has gone
    phone.page.touchscreen.tap(*phone.at(155, 58))  # 10 and 5 pixels from there
    phone.ask(COLOUR)
    sent = phone.last("ask")["regions"]["0"]["points"]
    assert np.abs(np.subtract(sent, [[195, 48], [185, 53]])).max() <= 1


def test_a_finger_draws_and_taps(phone: PageDriver) -> None:
    phone.tool("box")
    finger = phone.page.context.new_cdp_session(phone.page)
    places = [phone.at(164, 15), phone.at(190, 40), phone.at(224, 68)]
    for kind, place in zip(("touchStart", "touchMove", "touchMove"), places, strict=True):
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": place[0], "y": place[1]}]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    phone.tool("points")
    phone.page.get_by_role("button", name="New").click()
    phone.page.touchscreen.tap(*phone.at(174.5, 138.5))
    assert phone.regions == ["0 box", "1 points"]
    phone.ask("Is <Prompt0> larger or smaller than <Prompt1>?")
    sent = phone.last("ask")["regions"]
    assert np.abs(np.subtract(sent["0"]["box"], [164, 15, 224, 68])).max() <= 1  # a pixel of the screen is 0.66 of one
    assert np.abs(np.subtract(sent["1"]["points"], [[174, 138]])).max() <= 1
