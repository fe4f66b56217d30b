"""Questions asked in the page: the answers are those that the model gives when it is asked directly."""

from __future__ import annotations

import itertools
import json
import math
import re
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers.page_driver import EXAMPLES, PageDriver
from helpers.serving import Running, serving

from gar_edge.runtime import Box, Gar, Options
from gar_edge.runtime.regions import from_polygons
from gar_edge.runtime.scene import Scene

LISTED = {one["name"]: one for one in json.loads((EXAMPLES / "examples.json").read_text())}
TRUE = {
    "Shapes": ["pink", "larger", "yes", "moon"],
    "Crosses": ["the third", "left", "yellow"],
}
WATCH_TEXT = """() => {
    window.seen = [];
    new MutationObserver(() => {
        const said = document.querySelector('#answers .said');
        if (said && said.textContent !== seen.at(-1)) seen.push(said.textContent);
    }).observe(document.querySelector('#answers'), { childList: true, subtree: true, characterData: true });
}"""


@pytest.fixture(scope="module")
def slow() -> Iterator[Running]:
    """A server whose decoder takes a fifth of a second for each step."""
    with serving(step=0.2) as running:
        yield running


def opened(gar: Gar, name: str) -> tuple[Scene, dict[int, Any]]:
    """An example as its file has it: the picture, and its regions by number."""
    scene = gar.open(EXAMPLES / LISTED[name]["picture"])
    height, width = scene.image.shape[:2]
    found = [
        Box(*one["box"]) if "box" in one else from_polygons(one["polygons"], width, height)
        for one in LISTED[name]["regions"]
    ]
    return scene, dict(enumerate(found))


def named(question: str, regions: dict[int, Any]) -> dict[int, Any]:
    """Those that a question names."""
    return {int(number): regions[int(number)] for number in re.findall(r"<Prompt(\d+)>", question)}


@pytest.mark.parametrize("name", sorted(TRUE))
def test_the_examples_questions_get_the_models_answers_and_these_are_right(
    page: PageDriver, direct: Gar, name: str
) -> None:
    page.example(name)
    scene, regions = opened(direct, name)
    said, expected = [], []
    for number, one in enumerate(LISTED[name]["questions"]):
        page.page.locator("#ready .chip").nth(number).click()
        answers = page.ask()
        if one["mode"] == "describe":
            assert answers == [answer.text for answer in scene.describe_all(list(regions.values()))]
            continue
        about = named(one["question"], regions)
        said += answers
        if one["mode"] == "ask":
            expected.append(scene.ask(one["question"], about).text)
        else:
            expected.append(scene.choose(one["question"], about, one["choices"]).text)
    assert said == expected == TRUE[name]


def test_the_table_is_asked_about_too(page: PageDriver, direct: Gar) -> None:
    """gar-nano knows no tables; that what it says is shown is all that can be asked here."""
    page.example("Table")
    table = direct.open(EXAMPLES / "table.png")
    assert page.ask("What colour is <Prompt0>?") == [
        table.ask("What colour is <Prompt0>?", {0: Box(*LISTED["Table"]["regions"][0]["box"])}).text
    ]


def test_text_streams_in(page: PageDriver, shapes: Scene) -> None:
    page.bare("scene_1.png")
    page.box(76, 19, 128, 76)
    page.mode("describe")
    page.page.evaluate(WATCH_TEXT)
    [said] = page.ask()
    seen = [text for text in page.page.evaluate("window.seen") if text]
    assert said == shapes.describe(Box(76, 19, 128, 76)).text
    assert len(seen) > 3
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(seen))


def test_ticks_say_which_regions_are_described(page: PageDriver, direct: Gar) -> None:
    page.example("Crosses")
    scene, regions = opened(direct, "Crosses")
    page.mode("describe")
    page.page.get_by_label("Describe region 1").uncheck()
    assert page.ask() == [scene.describe(regions[0]).text, scene.describe(regions[2]).text]
    assert page.card.locator(".badge").all_inner_texts() == ["0", "2"]


def test_probabilities_of_words(page: PageDriver, direct: Gar) -> None:
    page.example("Crosses")
    scene, regions = opened(direct, "Crosses")
    page.mode("describe")
    page.page.click(".options summary")
    page.page.check("#sure")
    page.ask()
    truth = scene.describe_all(list(regions.values()), options=Options(logprobs=3))
    parts = page.card.locator(".part")
    for number, answer in enumerate(truth):
        part = parts.nth(number)
        assert part.locator(".said").text_content() == answer.text
        assert part.locator(".word").all_text_contents() == answer.text.split()
        part.get_by_text("Probabilities").click()
        shown = [float(text.removesuffix(" %")) for text in part.locator("tbody td:nth-child(2)").all_text_contents()]
        assert answer.logprobs is not None
        true = [100 * math.exp(one.logprob) for one in answer.logprobs][: len(shown)]
        assert shown == pytest.approx(true, abs=0.3)  # batches differ in the last bits, the page rounds
        assert len(shown) == len(answer.tokens) - 1  # all but the one that ends it
        mean, lowest = map(float, re.findall(r"[\d.]+(?= %)", part.locator(".confidence").inner_text()))
        assert answer.confidence is not None
        assert [mean, lowest] == pytest.approx([100 * answer.confidence.mean, 100 * answer.confidence.lowest], abs=0.3)


def test_choices_have_bars(page: PageDriver, direct: Gar) -> None:
    page.example("Crosses")
    scene, regions = opened(direct, "Crosses")
    page.mode("choose")
    page.page.fill("#choices", "green, yellow ,blue,")
    question = "What colour is <Prompt1>?"
    assert page.ask(question) == ["yellow"]
    truth = scene.choose(question, {1: regions[1]}, ["green", "yellow", "blue"]).probabilities
    names = page.card.locator(".bars .name").all_inner_texts()
    figures = page.card.locator(".bars .figure").all_inner_texts()
    shown = {name: float(figure.removesuffix(" %")) / 100 for name, figure in zip(names, figures, strict=True)}
    assert shown == pytest.approx(truth, abs=0.001)
    assert names[0] == "yellow"
    track = page.card.locator(".track").first.bounding_box()["width"]
    assert page.card.locator(".fill").first.bounding_box()["width"] == pytest.approx(track * truth["yellow"], abs=1)


def test_a_choice_that_is_not_likely_enough_is_none(page: PageDriver, direct: Gar) -> None:
    """Two wrong answers, neither of which is much likelier than the other."""
    page.example("Shapes")
    scene, regions = opened(direct, "Shapes")
    question, choices = "What shape is <Prompt4>?", ["star", "triangle"]
    truth = scene.choose(question, {4: regions[4]}, choices, abstain_below=0.95)
    assert truth.best is None
    page.mode("choose")
    page.page.fill("#choices", "star, triangle")
    page.page.fill("#abstain", "95")
    assert page.ask(question) == ["None is likely enough."]
    assert page.last("choose")["abstain_below"] == 0.95


def test_choices_must_be_two(page: PageDriver) -> None:
    page.example("Shapes")
    page.mode("choose")
    page.page.fill("#choices", "star,")
    page.page.click("#go")
    assert page.problem == "Give two choices at least, with commas between."
    assert page.page.evaluate("document.activeElement.id") == "choices"


def test_a_conversation_goes_on(page: PageDriver, direct: Gar) -> None:
    page.example("Crosses")
    scene, regions = opened(direct, "Crosses")
    first, second, third = (
        "Is <Prompt0> to the left or to the right of <Prompt2>?",
        "What colour is <Prompt2>?",
        "What shape is <Prompt0>?",
    )
    chat = scene.chat({0: regions[0], 2: regions[2]})
    truth = [chat.ask(question).text for question in (first, second, third)]
    said = page.ask(first)
    page.page.get_by_role("button", name="Follow up").click()
    assert page.page.evaluate("document.activeElement.id") == "question"
    said += page.ask(second)
    said += page.ask(third)
    assert said == truth
    turns = [{"question": first, "answer": truth[0]}, {"question": second, "answer": truth[1]}]
    assert page.last("chat")["turns"] == turns
    page.page.fill("#question", "What colour is <Prompt1>?")
    page.page.click("#go")
    assert "not in this conversation" in page.problem
    page.page.get_by_role("button", name="New conversation").click()
    assert page.ask() == [scene.ask("What colour is <Prompt1>?", {1: regions[1]}).text]


def test_a_conversation_ends_where_its_regions_change(page: PageDriver) -> None:
    page.example("Crosses")
    page.ask("What colour is <Prompt0>?")
    page.page.get_by_role("button", name="Follow up").click()
    page.page.get_by_label("Remove region 0").click()
    assert page.page.is_hidden("#conversation")
    page.page.get_by_role("button", name="Follow up").click()
    assert "The regions have changed" in page.page.inner_text("#said")


def test_regions_beyond_the_models_names_are_asked_about_by_free_ones(page: PageDriver, direct: Gar) -> None:
    page.example("Shapes")
    scene, regions = opened(direct, "Shapes")
    page.box(164, 15, 224, 68)
    assert page.regions[-1] == "5 box"
    said = page.ask("Is <Prompt5> larger or smaller than <Prompt1>?")
    assert page.last("ask")["question"] == "Is <Prompt0> larger or smaller than <Prompt1>?"
    truth = {0: Box(164, 15, 224, 68), 1: regions[1]}
    assert said == [scene.ask("Is <Prompt0> larger or smaller than <Prompt1>?", truth).text] == ["larger"]
    assert "<Prompt5> is asked about as <Prompt0>." in page.card.inner_text()
    page.page.fill("#question", "Which is largest, " + ", ".join(f"<Prompt{k}>" for k in range(6)) + "?")
    page.page.click("#go")
    assert page.problem == "A question takes 5 regions at most; this one names 6."


@pytest.mark.parametrize(
    ("question", "problem"),
    [
        ("", "Write a question."),
        ("What colour is it?", "Say which region: put <Prompt0> into the question."),
        ("What colour is <Prompt7>?", "<Prompt7> is not drawn."),
    ],
)
def test_a_question_that_cannot_be_asked_is_not_sent(page: PageDriver, question: str, problem: str) -> None:
    page.example("Shapes")
    page.page.fill("#question", question)
    page.page.click("#go")
    assert page.problem == problem
    assert page.page.evaluate("document.activeElement.id") == "question"
    assert not [path for _, path, _ in page.sent if path.endswith("/ask")]


def test_without_a_region_there_is_nothing_to_ask_about(page: PageDriver) -> None:
    page.bare("scene_1.png")
    page.page.fill("#question", "What is this?")
    page.page.click("#go")
    assert page.problem == "Draw a region first: the model answers about regions."
    page.mode("describe")
    page.page.click("#go")
    assert page.problem == "Draw a region first."


def test_chips_and_ticks_write_the_names(page: PageDriver) -> None:
    page.example("Shapes")
    page.page.fill("#question", "Is ")
    page.page.get_by_label("Insert <Prompt2>").click()
    page.page.keyboard.type(" larger than")
    page.page.get_by_label("Ask about region 1").check()
    assert page.page.input_value("#question") == "Is <Prompt2> larger than <Prompt1>"
    page.page.get_by_label("Ask about region 2").uncheck()
    assert page.page.input_value("#question") == "Is larger than <Prompt1>"
    assert page.page.get_by_label("Ask about region 1").is_checked()
    assert not page.page.get_by_label("Ask about region 2").is_checked()


def test_options_are_the_models(page: PageDriver, direct: Gar) -> None:
    page.example("Shapes")
    scene, regions = opened(direct, "Shapes")
    page.page.click(".options summary")
    for field, value in (("tokens", "6"), ("temperature", "1.5"), ("seed", "3")):
        page.page.fill(f"#{field}", value)
    page.mode("describe")
    for number in range(1, 5):
        page.page.get_by_label(f"Describe region {number}").uncheck()
    truth = scene.describe(regions[0], options=Options(max_new_tokens=6, temperature=1.5, seed=3))
    assert page.ask() == [truth.text]
    assert truth.finish_reason == "length"
    assert "Cut off: the tokens allowed were used up." in page.card.inner_text()


def test_timings_and_what_was_spared_are_shown(page: PageDriver) -> None:
    """The second of two equal questions takes over all but what the first left nothing of."""
    page.example("Shapes")
    page.ask("What colour is <Prompt0>?")
    page.ask()
    page.card.locator(".facts summary").click()
    shown = page.card.locator(".facts").inner_text()
    tiles = re.search(r"(\d+) of (\d+) tiles encoded, (\d+) taken over", shown)
    prompt = re.search(r"(\d+) tokens of prompt: (\d+) computed, (\d+) taken over", shown)
    assert tiles is not None
    assert prompt is not None
    assert tiles.groups() == ("0", "5", "5")
    whole, computed, spared = map(int, prompt.groups())
    assert computed + spared == whole
    assert spared > 0
    assert "2 tokens in" in shown


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stop_leaves_what_was_said_and_ends_the_request(slow: Running, browser: Any, direct: Gar, how: str) -> None:
    """On a server that takes its time for each token."""
    page = PageDriver(browser.new_context().new_page(), slow.url + "/")
    page.example("Shapes")
    scene, regions = opened(direct, "Shapes")
    page.mode("describe")
    for number in range(1, 5):
        page.page.get_by_label(f"Describe region {number}").uncheck()
    page.page.click("#go")
    page.until(lambda: len(page.page.locator("#answers .said").first.inner_text().split()) >= 2)
    assert page.page.is_hidden("#go")
    page.page.click("#stop") if how == "button" else page.page.keyboard.press("Escape")
    [said] = page.answered()
    whole = scene.describe(regions[0]).text
    assert whole.startswith(said)
    assert 2 <= len(said.split()) < len(whole.split()) - 4
    assert "Stopped." in page.card.inner_text()
    assert page.page.is_visible("#go")
    assert slow.line(route="/v1/scenes/{key}/describe", status=499)  # its client has gone
    page.until(lambda: "gar_in_the_making 0.0" in slow.ask("GET", "/metrics").body.decode())
    page.check()
    page.page.context.close()


def test_a_scene_that_the_server_has_forgotten_is_sent_again(page: PageDriver, direct: Gar) -> None:
    page.example("Shapes")
    scene, regions = opened(direct, "Shapes")
    page.settled()
    key = next(path.split("/")[2] for _, path, _ in page.sent if path.endswith("/outline"))
    gone = urllib.request.Request(f"{page.url}v1/scenes/{key}", method="DELETE")
    with urllib.request.urlopen(gone) as response:
        assert response.status == 204
    page.expected.append("404")
    question = "What colour is <Prompt2>?"
    assert page.ask(question) == [scene.ask(question, {2: regions[2]}).text]
    assert [path for method, path, _ in page.sent if method == "POST"].count("v1/scenes") == 2


def test_another_picture_lets_go_of_the_one_before(page: PageDriver) -> None:
    page.example("Shapes")
    page.page.get_by_role("button", name="Another picture").click()
    page.until(lambda: any(method == "DELETE" for method, _, _ in page.sent))
    page.example("Crosses")
    assert page.regions == ["0 box", "1 box", "2 box"]
    assert page.page.is_hidden("#answers-part")


def test_tabs_do_not_share_anything(tab: Callable[..., PageDriver]) -> None:
    one, other = tab(), tab()
    one.example("Shapes")
    other.example("Crosses")
    question = "What colour is <Prompt0>?"
    assert (one.ask(question), other.ask(question)) == (["pink"], ["yellow"])
