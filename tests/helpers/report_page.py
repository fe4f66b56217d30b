"""A quantisation report to be drawn, and what a parser finds on its page."""

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

LAYERS = 4
VOID = {"meta"}


def site(graph, name, group, **figures):
    usual = {"scheme": "int8", "alpha": 0.5, "snr_db": 30.0, "top": 12.0, "threshold": 9.0}
    return {"graph": graph, "site": name, "group": group, **usual, **figures}


def sample():
    """Two graphs; `blocks.1.fc2` stays float, and every site has another ratio."""
    encoder = (("attn.qkv", "qkv"), ("attn.proj", "proj"), ("fc1", "fc1"), ("fc2", "fc2"))
    decoder = (("attn.q_proj", "qkv"), ("attn.o_proj", "o_proj"), ("gate_proj", "gate_up"), ("down_proj", "down_proj"))
    sites = [site("encoder", f"blocks.{i}.{name}", group) for i in range(LAYERS) for name, group in encoder]
    sites += [site("encoder", name, "projector") for name in ("linear_1", "linear_2")]
    sites += [site("decoder", f"layers.{i}.{name}", group) for i in range(LAYERS) for name, group in decoder]
    sites.append(site("decoder", "head", "head", alpha=None))
    for number, one in enumerate(sites):
        one["snr_db"] = 18.5 + number * 17 % 29
    kept = next(one for one in sites if one["site"] == "blocks.1.fc2")
    kept.update(scheme="float", alpha=None, snr_db=None, top=None, threshold=None)
    return {
        "precision": "int8",
        "calibrator": "entropy",
        "model": "gar-nano-int8",
        "data": {
            "description": "some photographs",
            "builtin": True,
            "used": 96,
            "held_out": 32,
            "skipped": ["x.jpg: no mask", "y.jpg: no image"],
            "answers": True,
        },
        "budget": {"encoder_cosine": 0.998, "kl": 0.02, "held": True},
        "kept_float": [{"graph": "encoder", "site": "blocks.1.fc2", "snr_db": 17.1, "why": "asked for"}],
        "graphs": {
            "encoder": {"cosine": 0.99912, "relative_error": 0.041},
            "decoder": {
                "cosine": 0.99987,
                "relative_error": 0.013,
                "next_token_agreement": 0.993,
                "kl": 0.00041,
                "positions": 900,
            },
        },
        "sites": sites,
        "size": {
            "bytes": 1_500_000_000,
            "float16_bytes": 3_070_000_000,
            "bytes_per_token": {"float16": 87_600_000, "now": 43_800_000},
        },
    }


def with_sites(*sites):
    return {**sample(), "sites": list(sites), "kept_float": []}


class Page(HTMLParser):
    """Elements as (tag, attributes), texts by enclosing tag, and whether every tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    def words(self, *tags):
        return [text for tag, text in self.texts if tag in tags]


def charts(text):
    """The charts by label, as XML."""
    found = [ET.fromstring(svg) for svg in re.findall(r"<svg class=\"chart\".*?</svg>", text, re.DOTALL)]
    return {chart.get("aria-label"): chart for chart in found}


def dots(chart):
    """Name -> (x, y, classes)."""
    return {
        dot.findtext("title").partition(": ")[0]: (
            float(dot.get("cx")),
            float(dot.get("cy")),
            set(dot.get("class").split()),
        )
        for dot in chart.iter("circle")
    }


def gridlines(chart):
    """Number at a line -> its y."""
    numbers = [text for text in chart.iter("text") if text.get("text-anchor") == "end"]
    lines = [float(line.get("y1")) for line in chart.iter("line")]
    marks = {int(text.text): float(text.get("y")) for text in numbers if re.fullmatch(r"-?\d+", text.text)}
    return {number: min(lines, key=lambda line: abs(line - y)) for number, y in marks.items()}
