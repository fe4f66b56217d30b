"""Regions drawn in the picture: what the server is sent, and that the answers are about it."""

from __future__ import annotations

import pytest
from helpers.page_driver import PageDriver, mask_of, overlap, pixels, stroke

from gar_edge.runtime import Box, Points
from gar_edge.runtime.regions import find_mask, from_polygons
from gar_edge.runtime.scene import Scene

COLOUR = "What colour is <Prompt0>?"
WHAT = "What shape is <Prompt0>?"


def wide(driver: PageDriver, tool: str, width: int) -> float:
    """Take brush or eraser in a width; that in pixels of the picture."""
    driver.tool(tool)
    driver.page.fill("#width", str(width))
    return width / 200 * max(driver.size)


def test_a_box_is_sent_in_whole_pixels_and_asked_about(drawing: PageDriver, shapes: Scene) -> None:
    drawing.box(164, 15, 224, 68)
    assert drawing.regions == ["0 box"]
    assert drawing.ask(COLOUR) == [shapes.ask(COLOUR, {0: Box(164, 15, 224, 68)}).text] == ["green"]
    assert drawing.last("ask") == {"question": COLOUR, "regions": {"0": {"box": [164, 15, 224, 68]}}, "stream": True}


def test_a_box_may_be_drawn_from_any_corner_and_beyond_the_edge(drawing: PageDriver) -> None:
    drawing.tool("box")
    drawing.drag((224, 68), (164, 15))
    drawing.drag((200, 100), (260, 190))
    drawing.mode("describe")
    drawing.ask()
    assert drawing.last("describe")["regions"] == [{"box": [164, 15, 224, 68]}, {"box": [200, 100, 239, 170]}]


def test_a_box_shows_what_the_server_makes_of_it(drawing: PageDriver) -> None:
    """The triangle is tinted inside its contour, the ground beside it in the same box is not."""
    before = pixels(drawing, [(195, 50), (170, 22), (30, 120)])
    drawing.box(164, 15, 224, 68)
    drawing.settled()
    drawing.page.wait_for_timeout(200)
    after = pixels(drawing, [(195, 50), (170, 22), (30, 120)])
    assert before[0] != after[0]
    assert before[1:] == after[1:]


def test_a_whole_box_is_taken_as_it_is(drawing: PageDriver) -> None:
    drawing.box(164, 15, 224, 68)
    drawing.page.get_by_label("Region 0: the whole box").check()
    assert drawing.page.get_by_label("Region 0: the whole box").is_checked()
    drawing.ask(COLOUR)
    assert drawing.last("ask")["regions"] == {"0": {"box": [164, 15, 224, 68], "as_mask": True}}


def test_a_brush_paints_what_lies_under_it(drawing: PageDriver, shapes: Scene) -> None:
    width = wide(drawing, "brush", 14)
    path = [(185.0, 55.0), (195.0, 35.0), (205.0, 55.0), (190.0, 55.0)]
    drawing.drag(*path)
    assert drawing.regions == ["0 brush"]
    said = drawing.ask(COLOUR)
    mask = mask_of(drawing.last("ask")["regions"]["0"]["mask"])
    assert mask.shape == (170, 239)
    assert overlap(mask, stroke(drawing.size, path, width)) > 0.95  # positions on the screen are whole pixels
    assert said == [shapes.ask(COLOUR, {0: mask}).text] == ["green"]


def test_painting_on_adds_to_a_region_and_new_begins_another(drawing: PageDriver) -> None:
    width = wide(drawing, "brush", 10)
    first, second, third = (
        [(180.0, 55.0), (210.0, 55.0)],
        [(195.0, 30.0), (195.0, 60.0)],
        [(165.0, 135.0), (180.0, 135.0)],
    )
    drawing.drag(*first)
    drawing.drag(*second)
    assert drawing.regions == ["0 brush"]
    drawing.page.keyboard.press("n")
    drawing.drag(*third)
    assert drawing.regions == ["0 brush", "1 brush"]
    drawing.ask("Is <Prompt0> larger or smaller than <Prompt1>?")
    masks = {number: mask_of(one["mask"]) for number, one in drawing.last("ask")["regions"].items()}
    both = stroke(drawing.size, first, width) | stroke(drawing.size, second, width)
    assert overlap(masks["0"], both) > 0.95
    assert overlap(masks["1"], stroke(drawing.size, third, width)) > 0.95


def test_the_eraser_takes_from_what_was_cut_out_of_a_box(drawing: PageDriver, shapes: Scene) -> None:
    drawing.box(164, 15, 224, 68)
    drawing.settled()
    width = wide(drawing, "eraser", 14)
    drawing.drag((160, 60), (230, 60))
    assert drawing.regions == ["0 brush"]
    said = drawing.ask(COLOUR)
    mask = mask_of(drawing.last("ask")["regions"]["0"]["mask"])
    cut = find_mask(Box(164, 15, 224, 68), shapes.image) & ~stroke(drawing.size, [(160, 60), (230, 60)], width)
    assert overlap(mask, cut) > 0.95
    assert said == [shapes.ask(COLOUR, {0: mask}).text]


def test_a_region_of_which_nothing_is_left_is_gone_and_comes_back(drawing: PageDriver) -> None:
    wide(drawing, "brush", 5)
    drawing.drag((100, 100), (120, 100))
    wide(drawing, "eraser", 40)
    drawing.drag((90, 100), (130, 100))
    assert drawing.regions == []
    assert "Nothing was left of region 0" in drawing.page.inner_text("#said")
    drawing.page.keyboard.press("Control+z")
    assert drawing.regions == ["0 brush"]


def test_the_eraser_needs_a_region(drawing: PageDriver) -> None:
    drawing.tool("eraser")
    drawing.drag((90, 100), (130, 100))
    assert drawing.regions == []
    assert "Choose a region first" in drawing.page.inner_text("#said")


def test_points_inside_and_outside(drawing: PageDriver, shapes: Scene) -> None:
    drawing.tool("points")
    drawing.click(195, 48)
    drawing.settled()
    drawing.click(150, 100, button="right")
    drawing.page.keyboard.press("o")  # from here on points lie outside
    drawing.click(50, 140)
    drawing.page.check("input[name=side][value=inside]", force=True)
    drawing.click(190, 58)
    assert drawing.regions == ["0 points"]
    said = drawing.ask(COLOUR)
    sent = {"points": [[195, 48], [190, 58]], "not_points": [[150, 100], [50, 140]]}
    assert drawing.last("ask")["regions"] == {"0": sent}
    points = Points([(195, 48), (190, 58)], [(150, 100), (50, 140)])
    assert said == [shapes.ask(COLOUR, {0: points}).text] == ["green"]


def test_points_correct_a_box(drawing: PageDriver) -> None:
    drawing.box(76, 19, 147, 76)
    drawing.tool("points")
    drawing.click(128, 38, button="right")
    drawing.ask(COLOUR)
    assert drawing.last("ask")["regions"] == {"0": {"box": [76, 19, 147, 76], "not_points": [[128, 38]]}}


def test_a_point_outside_does_not_begin_a_region(drawing: PageDriver) -> None:
    drawing.tool("points")
    drawing.click(150, 100, button="right")
    assert drawing.regions == []
    assert "First a point inside" in drawing.page.inner_text("#said")


TRIANGLE = [(194, 16), (222, 64), (167, 66)]


@pytest.mark.parametrize("close", ["first corner", "double click", "Enter"])
def test_an_outline_is_closed(drawing: PageDriver, shapes: Scene, close: str) -> None:
    drawing.tool("polygon")
    for x, y in TRIANGLE[:-1]:
        drawing.page.mouse.click(*drawing.at(x, y))
    last = drawing.at(*TRIANGLE[-1])
    drawing.page.mouse.dblclick(*last) if close == "double click" else drawing.page.mouse.click(*last)
    if close == "first corner":
        drawing.page.mouse.click(*drawing.at(*TRIANGLE[0]))
    elif close == "Enter":
        drawing.page.focus("#canvas")
        drawing.page.keyboard.press("Enter")
    assert drawing.regions == ["0 polygon"]
    outline = [[194, 16, 222, 64, 167, 66]]
    said = drawing.ask(WHAT)
    assert drawing.last("ask")["regions"] == {"0": {"polygons": outline}}
    assert said == [shapes.ask(WHAT, {0: from_polygons(outline, *drawing.size)}).text] == ["triangle"]


def test_an_outline_can_be_left_off(drawing: PageDriver) -> None:
    drawing.tool("polygon")
    for x, y in TRIANGLE:
        drawing.page.mouse.click(*drawing.at(x, y))
    drawing.page.keyboard.press("Escape")
    drawing.page.focus("#canvas")
    drawing.page.keyboard.press("Enter")  # begins another outline, of one corner
    drawing.page.keyboard.press("Enter")
    assert drawing.regions == []
    assert "three corners" in drawing.page.inner_text("#said")


def test_a_box_without_extent_is_refused(drawing: PageDriver) -> None:
    drawing.tool("box")
    drawing.click(100, 100)
    assert drawing.regions == []
    assert "width and height" in drawing.page.inner_text("#said")


def test_undo_and_redo(drawing: PageDriver) -> None:
    undo, redo = drawing.page.get_by_role("button", name="Undo"), drawing.page.get_by_role("button", name="Redo")
    assert undo.is_disabled()
    assert redo.is_disabled()
    drawing.box(164, 15, 224, 68)
    drawing.box(153, 116, 195, 157)
    drawing.page.get_by_label("Remove region 0").click()
    assert drawing.regions == ["1 box"]
    undo.click()
    assert drawing.regions == ["0 box", "1 box"]
    drawing.page.keyboard.press("Control+z")
    assert drawing.regions == ["0 box"]
    drawing.page.keyboard.press("Control+Shift+z")
    redo.click()
    assert drawing.regions == ["1 box"]
    assert redo.is_disabled()
    drawing.box(10, 10, 40, 40)  # takes the number that is free
    assert drawing.regions == ["0 box", "1 box"]
    drawing.page.get_by_role("button", name="Clear").click()
    assert drawing.regions == []
    undo.click()
    assert drawing.regions == ["0 box", "1 box"]


def test_a_box_by_arrow_keys(drawing: PageDriver, shapes: Scene) -> None:
    """From the middle, 120, 85, to one corner and then the other; a step is a fortieth of 239, with Shift a pixel."""
    keys = drawing.page.keyboard
    keys.press("x")
    drawing.page.focus("#canvas")
    for key, times in (("ArrowRight", 8), ("ArrowUp", 12), ("Shift+ArrowLeft", 3)):
        for _ in range(times):
            keys.press(key)
    drawing.until(lambda: drawing.page.inner_text("#cursor") == "x 165, y 13")  # written with the next frame
    keys.press("Space")
    for key, times in (("ArrowRight", 10), ("ArrowDown", 9)):
        for _ in range(times):
            keys.press(key)
    keys.press("Space")
    said = drawing.ask(COLOUR)
    assert drawing.last("ask")["regions"] == {"0": {"box": [165, 13, 225, 67]}}
    assert said == [shapes.ask(COLOUR, {0: Box(165, 13, 225, 67)}).text] == ["green"]
