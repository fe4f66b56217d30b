"""gar-serve's page in a real browser, used as a reader would: by mouse, by keys, by touch."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "runtime" / "serve" / "page" / "examples"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WATCH = """
window.violations = [];
addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) =>
    violations.push(violatedDirective + ' ' + blockedURI));
"""


class PageDriver:
    """One tab.

    sent: `(method, path, body)` of the requests to the API, in their order; of a picture its type alone, for its bytes
    the browser does not tell. scene: what the server said of the last picture.
    """

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.size = (0, 0)
        self.sent: list[tuple[str, str, Any]] = []
        self.told: list[str] = []
        self.expected: list[str] = []
        self.scene: dict[str, Any] = {}
        self.hosts: set[str] = set()
        page.set_default_timeout(10_000)
        page.add_init_script(WATCH)
        page.on(
            "console", lambda message: self.told.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: self.told.append(str(error)))
        page.on("request", self._note)
        page.goto(url)
        page.wait_for_selector(".example")

    def _note(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss"):
            self.hosts.add(parts.netloc)
        if "/v1/" in parts.path:
            kind = request.headers.get("content-type", "")
            body = json.loads(request.post_data) if kind == "application/json" else kind
            self.sent.append((request.method, "v1/" + parts.path.partition("/v1/")[2], body))

    def check(self) -> None:
        """No error that was not expected, nothing against the policy, no other host."""
        unexpected = [text for text in self.told if not any(one in text for one in self.expected)]
        assert not unexpected, unexpected
        assert self.page.evaluate("window.violations") == []
        assert self.hosts == {urlsplit(self.url).netloc}

    # Pictures.

    def example(self, name: str) -> None:
        """Open one of the examples."""
        listed = json.loads((EXAMPLES / "examples.json").read_text())
        picture = next(one["picture"] for one in listed if one["name"] == name)
        with Image.open(EXAMPLES / picture) as image:
            self.size = image.size
        self._opening(lambda: self.page.get_by_role("button", name=name).click())

    def picture(self, name: str, data: bytes, size: tuple[int, int], *, kind: str = "image/png") -> None:
        """Open a picture through the file dialog's field. size: as it is shown."""
        self.size = size
        self._opening(lambda: self.page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": data}))

    def _opening(self, act: Callable[[], None]) -> None:
        with self.page.expect_response(lambda response: response.url.endswith("v1/scenes")) as response:
            act()
        self.scene = response.value.json()
        self.page.wait_for_selector("#canvas")

    def bare(self, name: str) -> None:
        """Open an example's picture as one's own, without its regions."""
        with Image.open(EXAMPLES / name) as image:
            self.picture(name, (EXAMPLES / name).read_bytes(), image.size)

    # Drawing.

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a place of the picture is in the window."""
        box = self.page.locator("#canvas").bounding_box()
        return box["x"] + x * box["width"] / self.size[0], box["y"] + y * box["height"] / self.size[1]

    def tool(self, name: str) -> None:
        """Take a tool."""
        self.page.click(f"#tool-{name}")

    def drag(self, *places: tuple[float, float]) -> None:
        """Press at the first place, go along the others, release."""
        self.page.mouse.move(*self.at(*places[0]))
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*self.at(*place), steps=4)
        self.page.mouse.up()

    def click(self, x: int, y: int, **how: Any) -> None:
        """Click into the middle of a pixel."""
        self.page.mouse.click(*self.at(x + 0.5, y + 0.5), **how)

    def box(self, left: int, upper: int, right: int, lower: int) -> None:
        """Draw a box."""
        self.tool("box")
        self.drag((left, upper), (right, lower))

    def settled(self) -> None:
        """Wait until the server has cut out what was drawn."""
        self.until(lambda: "Cutting" not in self.page.inner_text("#cards"))

    def until(self, true: Callable[[], bool], seconds: float = 10) -> None:
        """Wait for something; Playwright's own waiting would need `eval`, which the page's policy forbids."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end
            self.page.wait_for_timeout(20)

    @property
    def regions(self) -> list[str]:
        """The regions' cards: number and kind."""
        return self.page.locator("#cards .name").evaluate_all(
            "(all) => all.map((one) => one.firstChild.textContent + ' ' + one.lastChild.textContent)"
        )

    # Asking.

    def ask(self, question: str | None = None) -> list[str]:
        """Ask what is set, or this question, and wait; the answers' texts."""
        if question is not None:
            self.page.fill("#question", question)
        before = self.page.locator("#answers > li").count()
        self.page.click("#go")
        self.until(lambda: self.page.locator("#answers > li").count() > before)
        return self.answered()

    def answered(self) -> list[str]:
        """The newest card's texts, once it is complete."""
        self.page.wait_for_selector("#answers > li:first-child .parts[aria-busy=false]")
        return self.page.locator("#answers > li:first-child .said").all_inner_texts()

    def mode(self, name: str) -> None:
        """Ask, describe or choose."""
        self.page.check(f"input[name=mode][value={name}]")

    @property
    def card(self) -> Any:
        """The newest card."""
        return self.page.locator("#answers > li").first

    @property
    def problem(self) -> str:
        """What the page complains about."""
        return self.page.inner_text("#problem span") if self.page.is_visible("#problem") else ""

    def last(self, path: str) -> Any:
        """The body of the last request to one of the scene's paths."""
        return next(body for _, where, body in reversed(self.sent) if where.endswith(f"/{path}"))


def mask_of(url: str) -> np.ndarray:
    """A mask from a data: URL, bool [h,w]; it must be hard."""
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    grey = np.asarray(Image.open(BytesIO(base64.b64decode(data))).convert("L"))
    assert set(np.unique(grey)) <= {0, 255}
    return grey > 0


def stroke(size: tuple[int, int], places: Sequence[tuple[float, float]], width: float) -> np.ndarray:
    """What a round brush covers, bool [h,w]: the pixels whose centres lie within half its width of the path."""
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    near = np.full(x.shape, np.inf)
    for (x1, y1), (x2, y2) in zip(places, places[1:] or places, strict=False):
        dx, dy = x2 - x1, y2 - y1
        along = np.clip(((x - x1) * dx + (y - y1) * dy) / ((dx * dx + dy * dy) or 1), 0, 1)
        near = np.minimum(near, np.hypot(x - x1 - along * dx, y - y1 - along * dy))
    return near <= width / 2


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union."""
    return float((one & other).sum() / (one | other).sum())


def pixels(driver: PageDriver, places: list[tuple[int, int]]) -> list[list[int]]:
    """Colours of the canvas at places of the picture."""
    return driver.page.evaluate(
        """([places, width]) => {
            const shown = document.querySelector('#canvas'), scale = shown.width / width;
            const copy = new OffscreenCanvas(shown.width, shown.height);
            const context = copy.getContext('2d', { willReadFrequently: true });
            context.drawImage(shown, 0, 0);
            return places.map(([x, y]) => [...context.getImageData(x * scale, y * scale, 1, 1).data]);
        }""",
        [places, driver.size[0]],
    )
