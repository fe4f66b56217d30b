"""The HTML report: what a parser finds in it, against the report it was made of."""

import copy
import itertools
import json
import math
import re
import xml.etree.ElementTree as ET

import pytest
from helpers.report_page import LAYERS, Page, charts, dots, gridlines, sample, site, with_sites

from gar_edge.calibration.picture import html_report

HOSTILE = """<script>alert('1')</script>"&amp;\x00\x1b[31m\udc80"""


def test_every_site_is_a_dot_and_the_float_one_is_hollow():
    report = sample()
    drawn = charts(html_report(report))
    for graph in ("encoder", "decoder"):
        names = {one["site"] for one in report["sites"] if one["graph"] == graph}
        ratio = dots(drawn[f"{graph}: signal to noise by layer"])
        assert ratio.keys() == names
        hollow = {name for name, (_, _, classes) in ratio.items() if "hollow" in classes}
        assert hollow == names & {"blocks.1.fc2"}
        assert dots(drawn[f"{graph}: activation range by layer"]).keys() == names - {"blocks.1.fc2"}
    assert len(drawn) == 4


def test_dots_stand_at_their_decibels_and_layers():
    report = sample()
    for graph in ("encoder", "decoder"):
        chart = charts(html_report(report))[f"{graph}: signal to noise by layer"]
        placed, grid = dots(chart), gridlines(chart)
        assert len(grid) >= 3
        assert len(set(grid.values())) == len(grid)
        low, high = min(grid), max(grid)
        ratios = {one["site"]: one["snr_db"] or 17.1 for one in report["sites"] if one["graph"] == graph}
        for name, ratio in ratios.items():
            expected = grid[low] + (ratio - low) / (high - low) * (grid[high] - grid[low])
            assert placed[name][1] == pytest.approx(expected, abs=0.06)
        layers = [{x for name, (x, _, _) in placed.items() if f"s.{i}." in name} for i in range(LAYERS)]
        xs = [x for (x,) in layers]  # one place per layer
        assert xs == sorted(set(xs))
        outside = [x for name, (x, _, _) in placed.items() if "s." not in name]
        assert min(outside) > xs[-1]
        assert len(set(outside)) == len(outside)


def test_lines_pass_through_the_dots_of_their_group():
    report = sample()
    chart = charts(html_report(report))["encoder: signal to noise by layer"]
    placed = dots(chart)
    lines = sorted(line.get("points") for line in chart.iter("polyline"))
    groups = {}
    for one in report["sites"]:
        if one["graph"] == "encoder":
            groups.setdefault(one["group"], []).append("{:.1f},{:.1f}".format(*placed[one["site"]][:2]))
    assert lines == sorted(" ".join(points) for points in groups.values())


def test_range_dots_stand_at_the_kept_share():
    shares = {"blocks.0.fc1": 0.25, "blocks.1.fc1": 0.5, "blocks.2.fc1": 1.0, "blocks.3.fc1": 1.001}
    sites = [site("encoder", name, "fc1", top=8.0, threshold=8.0 * share) for name, share in shares.items()]
    sites.append(site("encoder", "blocks.4.fc1", "fc1", scheme="int4", threshold=None))
    chart = charts(html_report(with_sites(*sites)))["encoder: activation range by layer"]
    grid = gridlines(chart)
    assert {name: y for name, (_, y, _) in dots(chart).items()} == {
        "blocks.0.fc1": pytest.approx(grid[25], abs=0.06),
        "blocks.1.fc1": pytest.approx(grid[50], abs=0.06),
        "blocks.2.fc1": pytest.approx(grid[100], abs=0.06),
        "blocks.3.fc1": pytest.approx(grid[100], abs=0.06),
    }


def test_dots_and_words_are_inside_the_chart():
    for chart in charts(html_report(sample())).values():
        _, _, width, height = map(float, chart.get("viewBox").split())
        assert all(3 < x < width - 3 and 3 < y < height - 3 for x, y, _ in dots(chart).values())
        for text in chart.iter("text"):
            length = 7 * len(text.text)
            before = {"start": 0.0, "middle": 0.5, "end": 1.0}[text.get("text-anchor")] * length
            left = float(text.get("x")) - before
            assert 0 <= left <= left + length <= width, text.text
            assert 0 < float(text.get("y")) < height


@pytest.mark.parametrize("layers", [1, 2, 13, 14, 24, 48])
def test_words_below_a_chart_do_not_overlap(layers):
    sites = [site("encoder", f"blocks.{i}.fc1", "fc1") for i in range(layers)]
    sites += [site("encoder", name, "projector") for name in ("linear_1", "linear_2")]
    chart = charts(html_report(with_sites(*sites)))["encoder: signal to noise by layer"]
    words = [text for text in chart.iter("text") if text.get("text-anchor") == "middle"]
    places = sorted((float(text.get("x")), 3.5 * len(text.text)) for text in words)
    assert all(b - a > half + other for (a, half), (b, other) in itertools.pairwise(places))
    assert {text.text for text in words} >= {"0", "projector"}


def test_ratios_order_the_dots_even_where_they_are_not_finite():
    ratios = [-math.inf, -300.0, -25.0, -3.0, 0.0, 7.5, 30.0, 55.5, 79.0, 120.0, 300.0, math.inf]
    sites = [site("encoder", f"blocks.{i}.fc1", "fc1", snr_db=ratio) for i, ratio in enumerate(ratios)]
    sites += [site("encoder", f"blocks.{20 + i}.fc1", "fc1", snr_db=ratio) for i, ratio in enumerate([math.nan, None])]
    placed = dots(charts(html_report(with_sites(*sites)))["encoder: signal to noise by layer"])
    ys = [placed[f"blocks.{i}.fc1"][1] for i in range(len(ratios))]
    assert ys == sorted(ys, reverse=True)
    assert len(set(ys[2:9])) == 7  # apart from what is beyond the axis, no two alike
    lane = {placed[f"blocks.{i}.fc1"][1] for i in (20, 21)}
    assert len(lane) == 1
    assert min(lane) > max(ys) + 6  # below all that have a ratio


def test_the_axis_follows_the_finite_ratios():
    sites = [site("encoder", f"blocks.{i}.fc1", "fc1", snr_db=ratio) for i, ratio in enumerate([31.0, 38.0, math.inf])]
    grid = gridlines(charts(html_report(with_sites(*sites)))["encoder: signal to noise by layer"])
    assert (min(grid), max(grid)) == (30, 40)


@pytest.mark.parametrize("ratio", [-300.0, -20.0, 0.0, 33.3, 40.0, 80.0, 400.0, math.inf, math.nan, None])
def test_one_site(ratio):
    report = with_sites(site("decoder", "head", "head", snr_db=ratio))
    drawn = charts(html_report(report))
    ((x, y, classes),) = dots(drawn["decoder: signal to noise by layer"]).values()
    assert math.isfinite(x)
    assert math.isfinite(y)
    assert "hollow" not in classes
    assert "nan" not in ET.tostring(drawn["decoder: signal to noise by layer"], "unicode")


def test_no_sites():
    text = html_report(with_sites())
    assert charts(text) == {}
    assert "All sites: 0" in Page(text).words("summary")


def test_hostile_text_stays_text():
    def poison(value):
        if isinstance(value, dict):
            return {key: poison(each) for key, each in value.items()}
        if isinstance(value, list):
            return [poison(each) for each in value]
        return value + HOSTILE if isinstance(value, str) else value

    report = poison(sample())
    report["graphs"] = {HOSTILE + name: figures for name, figures in report["graphs"].items()}
    text = html_report(report)
    text.encode()  # a lone surrogate, as in a file name that is not UTF-8, would fail
    page, plain = Page(text), Page(html_report(sample()))
    assert {tag for tag, _ in page.elements} == {tag for tag, _ in plain.elements}
    assert {key for _, attributes in page.elements for key in attributes} == {
        key for _, attributes in plain.elements for key in attributes
    }
    shown = "".join(text for _, text in page.texts)
    assert shown.count("<script>alert('1')</script>\"&amp;") > len(report["sites"])
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)
    assert len(charts(text)) == 4  # well-formed XML


def test_nothing_is_loaded_and_nothing_runs():
    text = html_report(sample())
    assert not re.search(r"https?:|url\(|@import|//", text)
    page = Page(text)
    assert not {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "object", "embed", "base"}
    for _, attributes in page.elements:
        assert not {"src", "href", "xlink:href", "style"} & attributes.keys()
        assert not [name for name in attributes if name.startswith("on")]
    policies = [one["content"] for tag, one in page.elements if tag == "meta" and "http-equiv" in one]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_figures():
    page = Page(html_report(sample()))
    assert page.words("strong") == ["int8", "1.50 GB", "43.80 MB", "0.99912", "99.3 %", "0.00041"]
    notes = " ".join(page.words("span"))
    for note in ("float16: 3.07 GB, now 49 %", "float16: 87.60 MB, now 50 %", "at least 0.998", "at most 0.02", "900"):
        assert note in notes
    paragraphs = " ".join(page.words("p"))
    assert "cosine 0.99987, relative error 1.3 %" in paragraphs
    assert "some photographs (built in): 96 samples to calibrate, 32 held out" in paragraphs
    assert page.words("li") == ["x.jpg: no mask", "y.jpg: no image"]
    assert "gar-nano-int8" in page.words("title")[0]


@pytest.mark.parametrize(
    ("held", "kind", "words"), [(True, "good", "Within"), (False, "bad", "Over"), (None, "soft", "not measured")]
)
def test_budget(held, kind, words):
    report = sample()
    report["budget"]["held"] = held
    page = Page(html_report(report))
    assert any(words in text for text in page.words("p"))
    found = {one.get("class") for tag, one in page.elements if tag == "p"}
    assert found & {"good", "bad"} == {kind} - {"soft"}


def test_tables_have_every_site_and_why_some_stay_float():
    report = sample()
    cells = Page(html_report(report)).words("td")
    assert cells[:4] == ["encoder", "blocks.1.fc2", "17.1", "asked for"]
    names = [one["site"] for one in report["sites"]]
    assert [cell for cell in cells[4:] if cell in set(names) - {"head"}] == names[:-1]
    head = cells[-9:]
    assert head == ["decoder", "head", "head", "int8", "–", f"{report['sites'][-1]['snr_db']:.1f}", "12", "9", "75.0 %"]


def test_all_sites_are_folded_away():
    assert all("open" not in one for tag, one in Page(html_report(sample())).elements if tag == "details")


def paths(value, path=()):
    """Every place in a report, the first entry standing for all of a list."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, each in value.items():
            yield from paths(each, (*path, key))
    elif isinstance(value, list) and value:
        yield from paths(value[0], (*path, 0))


@pytest.mark.parametrize("path", [path for path in paths(sample()) if path[-1] != 0], ids=str)
@pytest.mark.parametrize("instead", ["missing", "null"])
def test_a_missing_value_leaves_a_page(path, instead):
    report = copy.deepcopy(sample())
    owner = report
    for key in path[:-1]:
        owner = owner[key]
    if instead == "missing":
        del owner[path[-1]]
    else:
        owner[path[-1]] = None
    text = html_report(report)
    assert Page(text).words("strong")
    for chart in charts(text).values():
        assert "None" not in chart.get("viewBox")


def test_figures_that_are_not_finite_leave_a_page():
    def spoil(value, by):
        if isinstance(value, dict):
            return {key: spoil(each, by) for key, each in value.items()}
        if isinstance(value, list):
            return [spoil(each, by) for each in value]
        return by if isinstance(value, (int, float)) and not isinstance(value, bool) else value

    for by in (math.nan, math.inf, -math.inf, 0, -1.0):
        report = json.loads(json.dumps(spoil(sample(), by)))
        for chart in charts(html_report(report)).values():
            assert all(math.isfinite(x) and math.isfinite(y) for x, y, _ in dots(chart).values())


def test_nothing_at_all():
    text = html_report({})
    assert Page(text).words("h1") == ["Model: quantisation"]
    assert charts(text) == {}
