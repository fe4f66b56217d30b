"""Pictures from files and arrays: values worked by hand; what is no picture, or no mask, named in one line."""

from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.spoilt import one_line
from PIL import Image, ImageDraw

from gar_edge.runtime.errors import GarImageError, GarMaskError
from gar_edge.runtime.images.loading import load_image
from gar_edge.runtime.images.mask_images import load_mask

pytestmark = pytest.mark.filterwarnings("error")  # whatever is handled is handled silently

RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (90, 90, 90)
COLOURS = np.array([[RED, GREEN], [BLUE, GREY]], np.uint8)  # [2,2,3]


@pytest.fixture
def photo() -> Image.Image:
    """RGB 64x48 with four flat quarters, so that JPEG keeps their colours."""
    picture = Image.new("RGB", (64, 48), GREY)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, 31, 23), RED)
    draw.rectangle((32, 0, 63, 23), GREEN)
    draw.rectangle((0, 24, 31, 47), BLUE)
    return picture


def quarters(array: np.ndarray) -> np.ndarray:
    """The colours in the middle of an image's four quarters: [2,2,3]."""
    height, width = array.shape[:2]
    return array[height // 4 :: height // 2, width // 4 :: width // 2].astype(int)


# Pictures


def test_an_rgb_png_is_read_as_it_is(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    found = load_image(tmp_path / "a.png")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, COLOURS)


def test_a_path_may_be_text(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(str(tmp_path / "a.png")), COLOURS)


def test_alpha_is_dropped_and_the_colours_under_it_stay(tmp_path: Path) -> None:
    alpha = np.array([[0, 255], [128, 1]], np.uint8)
    Image.fromarray(np.dstack([COLOURS, alpha])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), COLOURS)


def test_grey_with_alpha_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = np.array([[[10, 255], [200, 0]]], np.uint8)  # grey, alpha
    Image.fromarray(grey, "LA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), [[[10, 10, 10], [200, 200, 200]]])


def test_a_palette_is_resolved(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    picture.putpalette([*RED, *GREEN, *BLUE])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), [[RED, GREEN], [BLUE, GREEN]])


@pytest.mark.parametrize("transparency", [1, b"\x00\x80\xff"], ids=["one colour", "alpha per colour"])
def test_a_palette_with_transparency_is_resolved_silently(tmp_path: Path, transparency: int | bytes) -> None:
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    picture.putpalette([*RED, *GREEN, *BLUE])
    picture.save(tmp_path / "a.png", transparency=transparency)
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), [[RED, GREEN], [BLUE, GREEN]])


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    # 257 steps of 16 bits are one of 8: 65535 -> 255, 32896 = 128 * 257 -> 128, 300 / 257 = 1.17 -> 1, 400 -> 1.56 -> 2
    Image.fromarray(np.array([[0, 65535, 32896, 300, 400]], np.uint16)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png")[0].tolist() == [[0] * 3, [255] * 3, [128] * 3, [1] * 3, [2] * 3]


def test_big_endian_sixteen_bit_tiff_is_scaled(tmp_path: Path) -> None:
    picture = Image.frombytes("I;16B", (2, 1), bytes([0x80, 0x80, 0xFF, 0xFF]))
    picture.save(tmp_path / "a.tif")
    assert load_image(tmp_path / "a.tif")[0].tolist() == [[128] * 3, [255] * 3]


def test_a_one_bit_image_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").tolist() == [[[255] * 3, [0] * 3]]


def test_a_jpeg_is_read(tmp_path: Path, photo: Image.Image) -> None:
    photo.save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(quarters(load_image(tmp_path / "a.jpg")), COLOURS, atol=4)


def test_a_cmyk_jpeg_becomes_rgb(tmp_path: Path, photo: Image.Image) -> None:
    # Pillow's plain conversion: no colour profile, red is magenta + yellow.
    photo.convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as picture:
        assert picture.mode == "CMYK"
    np.testing.assert_allclose(quarters(load_image(tmp_path / "a.jpg")), COLOURS, atol=6)


# How a camera stores the upright photo: (the EXIF orientation, what was done to the pixels).
STORED = {
    1: [],
    2: [Image.Transpose.FLIP_LEFT_RIGHT],
    3: [Image.Transpose.ROTATE_180],
    4: [Image.Transpose.FLIP_TOP_BOTTOM],
    5: [Image.Transpose.TRANSPOSE],
    6: [Image.Transpose.ROTATE_90],  # to be turned clockwise to stand upright
    7: [Image.Transpose.TRANSVERSE],
    8: [Image.Transpose.ROTATE_270],
}


@pytest.mark.parametrize("orientation", sorted(STORED))
def test_an_exif_rotated_jpeg_is_turned_upright(tmp_path: Path, photo: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = photo
    for step in STORED[orientation]:
        stored = stored.transpose(step)
    stored.save(tmp_path / "a.jpg", quality=95, exif=exif)
    found = load_image(tmp_path / "a.jpg")
    assert found.shape == (48, 64, 3)
    np.testing.assert_allclose(quarters(found), COLOURS, atol=4)


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (4, 4), RED), Image.new("RGB", (4, 4), BLUE)
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert load_image(tmp_path / "a.gif")[0, 0].tolist() == list(RED)


def test_a_pillow_image_is_taken_and_left_open(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(load_image(picture), COLOURS)
        np.testing.assert_array_equal(np.asarray(picture), COLOURS)


def test_a_pillow_image_not_yet_loaded_and_damaged_is_an_image_error(tmp_path: Path) -> None:
    data = _encoded(Image.effect_noise((64, 64), 80), "PNG")
    with pytest.raises(GarImageError) as error:
        load_image(Image.open(io.BytesIO(data[: len(data) // 2])))
    one_line(error, "image: damaged")


def test_an_rgb_array_is_taken_as_it_is() -> None:
    np.testing.assert_array_equal(load_image(COLOURS), COLOURS)


def test_an_array_that_is_altered_later_leaves_the_picture_as_it_was() -> None:
    frame = COLOURS.copy()
    picture = load_image(frame)
    frame[...] = 0
    np.testing.assert_array_equal(picture, COLOURS)


def test_a_grey_array_becomes_three_equal_channels() -> None:
    assert load_image(np.array([[7, 9]], np.uint8)).tolist() == [[[7] * 3, [9] * 3]]


def test_a_strided_array_comes_back_contiguous() -> None:
    flipped = COLOURS[:, ::-1]
    found = load_image(flipped)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, [[GREEN, RED], [GREY, BLUE]])


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint16", "bool"])
def test_an_image_array_of_another_dtype_is_refused(dtype: str) -> None:
    with pytest.raises(GarImageError) as error:
        load_image(np.zeros((4, 4, 3), dtype))
    one_line(error, "uint8", dtype)


@pytest.mark.parametrize("shape", [(4, 4, 4), (4, 4, 1), (3, 4, 4), (4,), (1, 4, 4, 3), (0, 4, 3), (0, 4), (4, 0)])
def test_an_image_array_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GarImageError) as error:
        load_image(np.zeros(shape, np.uint8))
    one_line(error, "[height, width, 3]")


def test_a_floating_point_image_is_refused_by_name(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.5]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(GarImageError) as error:
        load_image(tmp_path / "a.tif")
    one_line(error, "a.tif", "floating-point", "save it as")


def test_colours_that_have_no_way_to_rgb_are_refused() -> None:
    with pytest.raises(GarImageError) as error:
        load_image(Image.new("La", (2, 2)))
    one_line(error, "La", "save it as")


# Files that are no pictures; the same for masks

LOADERS = pytest.mark.parametrize(
    ("load", "kind", "what"),
    [(load_image, GarImageError, "image"), (load_mask, GarMaskError, "mask")],
    ids=["image", "mask"],
)


def _encoded(picture: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()


@LOADERS
def test_a_missing_file_is_named(tmp_path: Path, load, kind, what) -> None:
    with pytest.raises(kind) as error:
        load(tmp_path / "none.png")
    one_line(error, str(tmp_path / "none.png"), f"no such {what} file")


@LOADERS
def test_a_folder_is_named_as_one(tmp_path: Path, load, kind, what) -> None:
    with pytest.raises(kind) as error:
        load(tmp_path)
    one_line(error, str(tmp_path), "folder", f"the {what} file")


@LOADERS
def test_text_called_png_is_not_an_image(tmp_path: Path, load, kind, what) -> None:
    (tmp_path / "a.png").write_text("not a picture\n")
    with pytest.raises(kind) as error:
        load(tmp_path / "a.png")
    one_line(error, "a.png", "not an image")


@LOADERS
def test_an_empty_file_is_not_an_image(tmp_path: Path, load, kind, what) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(kind) as error:
        load(tmp_path / "a.png")
    one_line(error, "a.png", "not an image")


@LOADERS
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_a_truncated_file_is_damaged(tmp_path: Path, load, kind, what, form: str) -> None:
    data = _encoded(Image.effect_noise((64, 64), 80), form)
    (tmp_path / "a.img").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(kind) as error:
        load(tmp_path / "a.img")
    one_line(error, "a.img")


@LOADERS
def test_altered_bytes_in_a_png_are_damage(tmp_path: Path, load, kind, what) -> None:
    data = bytearray(_encoded(Image.effect_noise((64, 64), 80), "PNG"))
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(kind) as error:
        load(tmp_path / "a.png")
    one_line(error, "a.png", f"damaged or unreadable {what}")


@LOADERS
def test_exif_that_is_no_exif_is_damage_not_a_crash(tmp_path: Path, load, kind, what) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.webp", exif=b"Exif\0\0MM\0\xda\0\0\0\x08")
    with pytest.raises(kind) as error:
        load(tmp_path / "a.webp")
    one_line(error, "a.webp", f"damaged or unreadable {what}")


@LOADERS
@pytest.mark.parametrize(("side", "why"), [(12, "over the limit"), (20, "over twice the limit")])
def test_a_decompression_bomb_is_refused(
    tmp_path: Path, load, kind, what, side: int, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (side, side)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(kind) as error:
        load(tmp_path / "a.png")
    one_line(error, "a.png", "over 100 pixels", "decompression bomb", "scale it down")


def test_a_picture_just_within_the_limit_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (10, 10)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert load_image(tmp_path / "a.png").shape == (10, 10, 3)


def test_threads_decode_side_by_side_and_leave_the_warnings_filter_alone(tmp_path: Path) -> None:
    for index in range(8):
        Image.new("RGB", (300, 200), (index, 0, 0)).save(tmp_path / f"{index}.png")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(load_image, [tmp_path / f"{index % 8}.png" for index in range(64)]))
    assert [int(image[0, 0, 0]) for image in found] == [index % 8 for index in range(64)]
    assert warnings.filters == before
