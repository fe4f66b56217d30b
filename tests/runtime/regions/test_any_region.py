"""Whatever is given as a region of a picture: a mask of the picture's size with a pixel in it, or a `GarError`.

EXAMPLES for each of the four tests; 100,500 in all were run once (`GAR_EDGE_EXAMPLES`, 2026-11-28).
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from gar_edge.runtime.errors import GarError
from gar_edge.runtime.regions import Box, Points, Polygons, box_mask, find_mask, from_labels, from_polygons, from_rle
from gar_edge.runtime.regions.files import read_regions

EXAMPLES = int(os.environ.get("GAR_EDGE_EXAMPLES", "150"))
WIDTH, HEIGHT = 12, 8
PICTURE = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
pytestmark = pytest.mark.filterwarnings("ignore")

numbers = st.one_of(
    st.integers(-2, 14), st.floats(-0.1, 1.1), st.floats(-3, 15), st.floats(), st.integers(), st.just(10**400)
)
names = st.sampled_from(
    ["photo.png", "a/photo.png", "b\\photo.png", "http://x/photo.png?d=1", "other.png", "", "\0", "["]
)
plain = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=5), names)
FIELDS = [
    "box", "points", "not_points", "size", "counts", "polygons", "mask", "label", "scribble", "regions", "mask_rles",
    "images", "annotations", "id", "image_id", "file_name", "width", "height", "segmentation", "bbox", "shapes",
    "shape_type", "imagePath", "imageWidth", "imageHeight", "group_id", "data", "result", "value", "rle", "type",
    "0", "7", "original_width", "original_height", "x", "y", "image", "radiusX", "radiusY", "rotation",
]  # fmt: skip
anything = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.one_of(st.sampled_from(FIELDS), st.text(max_size=3)), inner, max_size=5),
    ),
    max_leaves=12,
)


def spoilt(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What is meant, or now and then anything at all."""
    return st.one_of(good, good, good, good, anything)


def obj(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return spoilt(st.fixed_dictionaries({}, optional={name: spoilt(value) for name, value in fields.items()}))


flat = st.lists(numbers, max_size=10)
pairs = st.lists(st.lists(numbers, min_size=2, max_size=2), max_size=6)
side = st.sampled_from([WIDTH, HEIGHT, float(WIDTH), 2 * WIDTH, 2 * HEIGHT, 1, 0, -1, 3.5, 10**9])
rle = obj(
    size=st.lists(side, min_size=2, max_size=2),
    counts=st.one_of(
        st.lists(st.integers(-1, 96), max_size=6), st.just([40, 20, 36]), st.text("0123456789LMNOoPa~", max_size=9)
    ),
)
files = st.sampled_from(["mask.png", "labels.png", "none.png", ".", "bad.png"])
own = obj(
    box=st.lists(numbers, min_size=4, max_size=4), points=pairs, not_points=pairs, polygons=st.lists(flat, max_size=3),
    mask=files, label=st.integers(0, 4), scribble=files,
)  # fmt: skip
region = st.one_of(own, rle)
keys = st.integers(0, 2)
coco = obj(
    images=st.lists(obj(id=keys, file_name=names, coco_url=names, width=side, height=side), max_size=3),
    annotations=st.lists(
        obj(id=keys, image_id=keys, segmentation=st.one_of(st.lists(flat, max_size=3), flat, rle), bbox=flat),
        max_size=4,
    ),
)
kinds = st.sampled_from(["polygon", "rectangle", "circle", "mask", "point", "line", "rotation", None, "x"])
labelme = obj(
    imagePath=names, imageWidth=side, imageHeight=side,
    shapes=st.lists(
        obj(shape_type=kinds, points=pairs, group_id=keys, label=st.text(max_size=1), mask=st.text(max_size=8)),
        max_size=4,
    ),
)  # fmt: skip
percent = {
    name: st.one_of(st.floats(-5, 105), numbers)
    for name in ("x", "y", "width", "height", "radiusX", "radiusY", "rotation")
}
label_studio = spoilt(
    st.lists(
        obj(
            data=obj(image=names),
            annotations=st.lists(
                obj(
                    result=st.lists(
                        obj(
                            type=st.just("brushlabels"), original_width=side, original_height=side,
                            value=obj(rle=st.lists(st.integers(0, 300), max_size=20), points=pairs, **percent),
                        ),
                        max_size=3,
                    )
                ),
                max_size=2,
            ),
        ),
        max_size=3,
    )
)  # fmt: skip
entries = st.lists(
    obj(image=names, mask_rles=st.lists(rle, max_size=3), regions=st.lists(region, max_size=3)), max_size=3
)
documents = st.one_of(
    anything, region, st.lists(region, max_size=4), st.dictionaries(st.sampled_from("0179x"), region, max_size=3),
    obj(regions=st.lists(region, max_size=3)), entries, coco, labelme, label_studio,
)  # fmt: skip


def check_line(error: GarError) -> None:
    assert str(error)
    assert "\n" not in str(error)


def try_out(given_as: Any) -> None:
    """A mask of the picture, or a GarError of one line."""
    try:
        mask = find_mask(given_as, PICTURE, box_mask)
    except GarError as error:
        check_line(error)
        return
    assert mask.dtype == np.bool_
    assert mask.shape == (HEIGHT, WIDTH)
    assert mask.any()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("any")
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[2:5, 3:8] = 1
    Image.fromarray(values * 255).save(folder / "mask.png")
    values[6, 9] = 3
    Image.fromarray(values).save(folder / "labels.png")
    (folder / "bad.png").write_text("no picture")
    return folder


@many
@given(document=documents)
def test_any_json(folder: Path, document: Any) -> None:
    path = folder / "regions.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    try:
        regions = read_regions(path, "a/photo.png")
    except GarError as error:
        check_line(error)
        return
    assert regions
    for number, found in regions.items():
        assert isinstance(number, int)
        try_out(found)


MODES = [
    "1",
    "L",
    "P",
    "LA",
    "PA",
    "RGB",
    "RGBA",
    "RGBX",
    "RGBa",
    "La",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "I;16",
    "I;16B",
]
FORMATS = [None, "PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "ICO"]


@many
@given(
    mode=st.sampled_from(MODES),
    form=st.sampled_from(FORMATS),
    size=st.sampled_from([(WIDTH, HEIGHT), (2 * WIDTH, 2 * HEIGHT), (HEIGHT, WIDTH), (1, 1), (3, 7)]),
    levels=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
    exif=st.sampled_from([None, 1, 3, 6, 9]),
    cut=st.sampled_from([1.0, 1.0, 1.0, 0.9, 0.5]),
)
def test_any_image(
    folder: Path,
    mode: str,
    form: str | None,
    size: tuple[int, int],
    levels: int,
    seed: int,
    exif: int | None,
    cut: float,
) -> None:
    random = np.random.default_rng(seed)
    values = random.choice(random.integers(0, 256, levels), (size[1], size[0], 4)).astype(np.uint8)
    values[: size[1] // 2] = values[0, 0]
    blank = Image.new(mode, size)
    picture = Image.frombytes(mode, size, np.resize(values, len(blank.tobytes())).tobytes())
    source: Any = picture
    if form is not None:
        source = folder / "any.img"
        options: dict[str, Any] = {}
        if exif is not None:
            options["exif"] = Image.Exif()
            options["exif"][0x0112] = exif
        try:
            picture.save(source, form, **options)
        except (OSError, ValueError, KeyError, SystemError, AttributeError):  # this format does not hold this mode
            return
        data = source.read_bytes()
        source.write_bytes(data[: int(len(data) * cut)])
    try_out(source)
    try:
        labels = from_labels(source)
    except GarError:
        return
    assert all(mask.any() for mask in labels.values())


@many
@given(
    array=arrays.arrays(
        st.one_of(
            arrays.boolean_dtypes(), arrays.integer_dtypes(), arrays.unsigned_integer_dtypes(),
            arrays.floating_dtypes(), arrays.complex_number_dtypes(), st.just(np.dtype(object)),
        ),
        st.one_of(
            arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
            st.sampled_from([(HEIGHT, WIDTH, *more) for more in ((), (1,), (3,))]),
            st.sampled_from([(1, HEIGHT, WIDTH), (2, HEIGHT, WIDTH)]),
        ),
        fill=st.nothing(),
    )
)  # fmt: skip
def test_any_array(array: np.ndarray) -> None:
    try_out(array)
    for read in (lambda: from_polygons(array, WIDTH, HEIGHT), lambda: from_polygons([array], WIDTH, HEIGHT)):
        try:
            assert read().shape == (HEIGHT, WIDTH)
        except GarError as error:
            check_line(error)


objects = st.one_of(
    anything, own, rle, flat, pairs, st.binary(max_size=4), st.tuples(numbers, numbers),
    st.sets(st.integers(), max_size=2),
    st.sampled_from([object(), object, len, Path("none.png"), np.float32(1), range(3), 1j, Ellipsis]),
)  # fmt: skip


@many
@given(thing=objects)
def test_any_object(thing: Any) -> None:
    try_out(thing)
    makers = (
        from_rle,
        lambda one: Box(*one) if isinstance(one, (list, tuple)) and len(one) == 4 else Box(one, 0, 5, 5),
        Points,
        lambda one: Points(one, one),
        Polygons,
    )
    for make in makers:
        try:
            made = make(thing)
        except GarError as error:
            check_line(error)
            continue
        if not isinstance(made, np.ndarray):
            try_out(made)
