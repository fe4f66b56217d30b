"""Masks as tools write them: read as they are meant, with a warning where that had to be judged, or refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.refusals import refused
from PIL import Image, features

from gar_edge.runtime.images import load_labels, load_mask
from gar_edge.runtime.regions import Scribble, find_mask, from_labels

WIDTH, HEIGHT = 120, 80
REGION = np.zeros((HEIGHT, WIDTH), bool)
REGION[20:60, 30:75] = True
REGION[35:45, 75:90] = True
OTHER = np.zeros_like(REGION)
OTHER[5:15, 95:115] = True
RANDOM = np.random.default_rng(0)


def soft(low: int, high: int, blur: float, noise: int = 0) -> np.ndarray:
    """A matte: ground and region at these levels, with a soft edge and noise, uint8."""
    matte = cv2.GaussianBlur(REGION.astype(np.float32), (0, 0), blur) if blur else REGION.astype(np.float32)
    return np.clip(low + (high - low) * matte + RANDOM.integers(0, noise + 1, REGION.shape), 0, 255).astype(np.uint8)


def photograph() -> np.ndarray:
    """Blurred noise from black to white, as RGB."""
    noise = RANDOM.normal(0, 1, (HEIGHT, WIDTH, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 6)
    return np.clip(128 + 90 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def painted(ground: Any, colour: Any, other: Any = None) -> np.ndarray:
    """The region, and another one, in colours, uint8 [H,W,C]."""
    image = np.full((HEIGHT, WIDTH, np.size(ground)), ground, np.uint8)
    image[REGION] = colour
    if other is not None:
        image[OTHER] = other
    return image.squeeze()


def with_alpha(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.dstack([colours, alpha]).astype(np.uint8)


def palette(values: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(values.astype(np.uint8), "P")
    image.putpalette([at for colour in colours for at in colour])
    return image


def rim(mask: np.ndarray) -> np.ndarray:
    """A thin border, as VOC's void."""
    return (cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) ^ mask


EXACT: dict[str, Callable[[], Any]] = {
    "black and white": lambda: painted(0, 255),
    "zero and one": lambda: painted(0, 1),
    "white on black, as RGB": lambda: painted((0, 0, 0), (255,) * 3),
    "red on black": lambda: painted((0, 0, 0), (200, 0, 0)),
    "black on transparent": lambda: with_alpha(np.zeros((HEIGHT, WIDTH, 3)), REGION * 255),
    "photograph cut out": lambda: with_alpha(photograph(), REGION * 255),
    "white everywhere, transparent outside": lambda: with_alpha(np.full((HEIGHT, WIDTH, 3), 255), REGION * 255),
    "one grade of transparency": lambda: with_alpha(np.full((HEIGHT, WIDTH, 3), 255), REGION * 90),
    "grey and alpha, black": lambda: Image.fromarray(with_alpha(np.zeros(REGION.shape), REGION * 255), "LA"),
    "sixteen bit": lambda: REGION.astype(np.uint16) * 65535,
    "one label at sixteen bit": lambda: REGION.astype(np.uint16) * 26001,
}
JUDGED: dict[str, Callable[[], Any]] = {
    "a ground of one": lambda: painted(1, 255),
    "a ground of two, noisy region": lambda: painted(2, 250),
    "video range": lambda: painted(16, 235),
    "video range, as RGB": lambda: painted((16,) * 3, (235,) * 3),
    "soft edge": lambda: soft(0, 255, 1.5),
    "soft edge on a noisy ground": lambda: soft(0, 252, 1.2, noise=3),
    "soft edge, coloured": lambda: np.dstack([soft(0, 255, 1.0), *np.zeros((2, *REGION.shape), np.uint8)]),
    "soft alpha": lambda: with_alpha(photograph(), soft(0, 255, 1.2)),
    "soft alpha on a noisy ground": lambda: with_alpha(photograph(), soft(0, 252, 1.2, noise=3)),
    "soft at sixteen bit": lambda: soft(0, 255, 1.5).astype(np.uint16) * 257,
}
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "inverted": (lambda: np.where(OTHER, 0, 255).astype(np.uint8), "97.9 % of the picture"),
    "inverted, transparent": (lambda: with_alpha(np.zeros((HEIGHT, WIDTH, 3)), ~OTHER * 255), "97.9 %"),
    "white": (lambda: np.full(REGION.shape, 255, np.uint8), "100.0 %"),
    "photograph": (photograph, "has [0-9]+ colours"),
    "photograph in grey": (lambda: photograph()[..., 0], "has [0-9]+ values"),
    "two classes without a ground": (lambda: painted(1, 2), r"has 2 values \(1, 2\).*FILE#LABEL"),
    "two instances": (lambda: painted(0, 1, 2), r"has 3 values \(0, 1, 2\)"),
    "two instances drawn visibly": (lambda: painted(0, 255, 128), r"has 3 values \(0, 128, 255\)"),
    "labels and void": (lambda: np.where(rim(REGION), 255, painted(0, 1)).astype(np.uint8), r"\(0, 1, 255\)"),
    "Cityscapes": (lambda: np.where(REGION, 26001, painted(7, 7)).astype(np.uint16), "FILE#LABEL"),
    "panoptic": (lambda: painted((10, 2, 0), (222, 20, 0), (44, 1, 0)), "FILE#ID.*300, 522, 5342"),
    "coloured instances": (lambda: painted((0, 0, 0), (255, 0, 0), (0, 255, 0)), "has 3 colours"),
    "coloured instances on transparent ground": (
        lambda: with_alpha(painted((0, 0, 0), (255, 0, 0), (0, 255, 0)), (REGION | OTHER) * 255), "has 2 colours",
    ),
    "red on white": (lambda: painted((255,) * 3, (255, 0, 0)), "has 2 colours"),
    "palette of three": (lambda: palette(painted(0, 1, 2), (0, 0, 0), (128, 0, 0), (0, 128, 0)), "FILE#LABEL.*0, 1, 2"),
    "palette with void": (
        lambda: palette(np.where(rim(REGION), 255, painted(0, 1)), (0, 0, 0), (128, 0, 0), *[(224, 224, 192)] * 254),
        "FILE#LABEL.*0, 1, 255",
    ),
    "scores": (lambda: Image.fromarray(RANDOM.normal(0, 1, REGION.shape).astype(np.float32)), "threshold"),
}  # fmt: skip


def saved(source: Any, path: Path) -> Path:
    picture = source if isinstance(source, Image.Image) else Image.fromarray(source)
    path = path.with_suffix(".tif") if picture.mode == "F" else path
    picture.save(path)
    return path


@pytest.mark.parametrize("kind", EXACT)
def test_two_values_are_a_mask_and_nothing_is_said(tmp_path: Path, kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(load_mask(saved(EXACT[kind](), tmp_path / "m.png")), REGION)


@pytest.mark.parametrize("kind", JUDGED)
def test_what_reaches_half_is_taken_with_a_warning(tmp_path: Path, kind: str) -> None:
    path = saved(JUDGED[kind](), tmp_path / "m.png")
    with pytest.warns(UserWarning, match=r"m\.png: .*half") as caught:
        found = load_mask(path)
    assert len(caught) == 1
    edge = cv2.dilate(rim(REGION).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    np.testing.assert_array_equal(found[~edge], REGION[~edge])
    assert abs(int(found.sum()) - int(REGION.sum())) < 0.03 * REGION.sum()


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_mask_of_one_region_is_refused_with_the_way_out(tmp_path: Path, kind: str) -> None:
    make, part = REFUSED[kind]
    with warnings.catch_warnings(), refused(part):
        warnings.simplefilter("error")
        load_mask(saved(make(), tmp_path / "m.png"))


def test_numpy_arrays_follow_the_same_rules_and_bool_arrays_are_certain() -> None:
    np.testing.assert_array_equal(load_mask(REGION), REGION)
    np.testing.assert_array_equal(load_mask(~OTHER), ~OTHER)  # `find_mask` asks whether it is inverted
    with pytest.warns(UserWarning, match="mask array: has .* half"):
        load_mask(soft(0, 255, 1.5))
    for array in (painted(0, 1, 2), np.where(OTHER, 0, 255), painted(1, 2).astype(np.int64)):
        with refused("mask array: "):
            load_mask(array)


@pytest.mark.parametrize("form", ["jpg", "webp", "avif"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_every_lossy_format_warns_and_is_read_at_half(tmp_path: Path, form: str, mode: str) -> None:
    if form == "avif" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF; PyPI's wheels of 11.3 and newer have it")
    path = tmp_path / f"m.{form}"
    Image.fromarray(painted(0, 255)).convert(mode).save(path, quality=75)
    for source in (path, Image.open(path)):
        with pytest.warns(UserWarning, match="lossy compression .* save it as PNG") as caught:
            found = load_mask(source)
        assert len(caught) == 1
        np.testing.assert_array_equal(found, REGION)
    with refused("lossy compression alters"):
        load_labels(path)


def test_a_lossy_mask_of_ones_has_lost_its_region(tmp_path: Path) -> None:
    Image.fromarray(painted(0, 1)).save(tmp_path / "m.jpg")
    with refused("no clear black and white"):
        load_mask(tmp_path / "m.jpg")


def test_lossless_webp_and_two_valued_jpeg_2000_are_not_suspected(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Image.fromarray(painted(0, 255)).save(tmp_path / "m.webp", lossless=True)
        np.testing.assert_array_equal(load_mask(tmp_path / "m.webp"), REGION)
        Image.fromarray(painted(0, 255)).save(tmp_path / "m.jp2")
        np.testing.assert_array_equal(load_mask(tmp_path / "m.jp2"), REGION)


def test_a_mask_of_the_whole_border_is_asked_about(tmp_path: Path) -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    with pytest.warns(UserWarning, match=r"region 2: 79\.7 % of the picture .* inverted\?"):
        find_mask(~REGION, picture, name="region 2")


# Labels


def test_panoptic_numbers_are_red_green_and_blue(tmp_path: Path) -> None:
    saved(painted((10, 2, 0), (222, 20, 0), (59, 208, 106)), tmp_path / "p.png")
    for source in (tmp_path / "p.png", painted((10, 2, 0), (222, 20, 0), (59, 208, 106))):
        found = from_labels(source)
        assert list(found) == [10 + 256 * 2, 222 + 256 * 20, 59 + 256 * 208 + 65536 * 106]
        np.testing.assert_array_equal(found[5342], REGION)


def test_void_is_left_out_beside_other_labels(tmp_path: Path) -> None:
    saved(np.where(rim(REGION), 255, painted(0, 1, 3)).astype(np.uint8), tmp_path / "voc.png")
    with pytest.warns(UserWarning, match=r"voc\.png: label 255 is left out, .* #255 names it"):
        found = from_labels(tmp_path / "voc.png")
    assert list(found) == [1, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(from_labels(painted(0, 255))) == [255]  # alone it is a region


# Strokes


@pytest.mark.parametrize("ground", [255, 200])
def test_strokes_without_a_ground_are_refused(ground: int) -> None:
    strokes = np.full((HEIGHT, WIDTH, 3), ground, np.uint8)
    strokes[40, 40:60] = (0, 200, 0)
    for image in (strokes, photograph()):
        with refused("of the scribble is drawn on", "black or transparent ground"):
            Scribble(image).marks(WIDTH, HEIGHT)
