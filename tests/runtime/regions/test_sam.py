"""The Segment-Anything segmenter, on a stand-in pair of graphs whose answers can be worked by hand.

The encoder hands its picture on as the embeddings. The decoder's first mask is what is red in them, brought back to the
picture's size; its second is what lies left of the first point. A box makes the first score higher, points the second.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from gar_edge.runtime.errors import GarBackendError, GarMaskError
from gar_edge.runtime.regions import Box, Points, Sam, Scribble, find_mask
from gar_edge.runtime.regions.segmenters import sam

SIDE = 64
WIDTH, HEIGHT = 256, 128
ENCODER = f"""<ir_version: 8, opset_import: ["" : 17]>
encoder (float[1,3,{SIDE},{SIDE}] x) => (float[1,3,{SIDE},{SIDE}] embeddings) {{ embeddings = Identity(x) }}"""
DECODER = f"""<ir_version: 8, opset_import: ["" : 17]>
decoder (float[1,3,{SIDE},{SIDE}] image_embeddings, float[1,n,2] point_coords, float[1,n] point_labels,
         float[1,1,m,m] mask_input, float[1] has_mask_input, float[2] orig_im_size)
     => (float[1,2,h,w] masks, float[1,2] iou_predictions)
<float scale = {{{1 / SIDE}}}, int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[2] corner = {{0, 0}},
 int64[2] start = {{2, 3}}, float box = {{2}}, int64 first = {{0}}, int64 second = {{1}}, float half = {{0.5}},
 float nought = {{0}}, float step = {{1}}, int64[2] ones = {{1, 1}},
 float[1,1] high = {{0.9}}, float[1,1] low = {{0.1}}> {{
  size = Cast<to = 7>(orig_im_size)
  longest = ReduceMax<keepdims = 1>(size)
  sizes = Concat<axis = 0>(ones, longest, longest)
  red = Slice(image_embeddings, zero, one, one)
  whole = Resize<mode = "nearest">(red, , , sizes)
  seen = Slice(whole, corner, size, start)
  width = Gather(orig_im_size, second)
  steps = Range(nought, width, step)
  xs = Add(steps, half)
  points = Gather<axis = 1>(point_coords, first)
  x = Gather<axis = 1>(points, first)
  length = ReduceMax<keepdims = 0>(orig_im_size)
  ratio = Mul(length, scale)
  limit = Mul(x, ratio)
  row = Sub(limit, xs)
  shape = Concat<axis = 0>(ones, size)
  left = Expand(row, shape)
  masks = Concat<axis = 1>(seen, left)
  corners = Equal(point_labels, box)
  marked = Cast<to = 1>(corners)
  boxes = ReduceMax<keepdims = 0>(marked)
  boxed = Cast<to = 9>(boxes)
  given = Where(boxed, high, low)
  other = Where(boxed, low, high)
  iou_predictions = Concat<axis = 1>(given, other)
}}"""


def save(path: Path, text: str) -> Path:
    onnx.save(onnx.parser.parse_model(text), path)
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sam")
    return save(folder / "encoder.onnx", ENCODER), save(folder / "decoder.onnx", DECODER)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """256x128, black but for a red block, at multiples of the scale 4."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[40:80, 100:180] = (255, 0, 0)
    return image


def block(image: np.ndarray) -> np.ndarray:
    return image[..., 0] > 128


def test_a_box_asks_with_the_picture_scaled_to_the_encoders_side(pair: tuple[Path, Path], picture: np.ndarray) -> None:
    found = find_mask(Box(90, 30, 200, 100), picture, Sam(*pair))
    assert found.dtype == np.bool_
    wrong = found ^ block(picture)
    assert wrong[44:76, 104:176].sum() == 0
    assert wrong[:36].sum() + wrong[84:].sum() + wrong[:, :96].sum() + wrong[:, 184:].sum() == 0


def test_an_upright_picture_is_padded_on_the_right(pair: tuple[Path, Path], picture: np.ndarray) -> None:
    upright = np.ascontiguousarray(picture.transpose(1, 0, 2))
    found = find_mask(Box(30, 90, 100, 200), upright, Sam(*pair))
    assert (found & block(upright)).sum() > 0.9 * (found | block(upright)).sum()


def test_points_are_scaled_like_the_picture(pair: tuple[Path, Path], picture: np.ndarray) -> None:
    found = find_mask(Points([(150, 60)]), picture, Sam(*pair))
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[:, :150] = True  # centres 149.5 and less lie left of the point's pixel's centre, 150.5
    np.testing.assert_array_equal(found, expected)


class Spy:
    """Notes what the graphs are given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[dict[str, Any]] = []
        run = sam._run

        def spied(session: Any, outputs: Any, inputs: dict[str, Any]) -> list[Any]:
            self.calls.append(inputs)
            return run(session, outputs, inputs)

        monkeypatch.setattr(sam, "_run", spied)


@pytest.mark.parametrize(
    ("cue", "labels", "coordinates"),
    [
        (Box(40, 20, 80, 100), [2, 3], [[10, 5], [20, 25]]),
        (Points([(150, 60)], [(9, 9)]), [1, 0, -1], [[37.625, 15.125], [2.375, 2.375], [0, 0]]),
        (
            Points([(50, 60)], [(41, 21)], Box(40, 20, 80, 100)),
            [1, 0, 2, 3],
            [[12.625, 15.125], [10.375, 5.375], [10, 5], [20, 25]],
        ),
    ],
)
def test_the_decoder_is_asked_as_segment_anything_documents(
    pair: tuple[Path, Path],
    picture: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    cue: Any,
    labels: Any,
    coordinates: Any,
) -> None:
    spy = Spy(monkeypatch)
    find_mask(cue, picture, Sam(*pair))
    pixels, asked = spy.calls[0]["x"], spy.calls[1]
    assert asked["point_labels"].tolist() == [labels]
    np.testing.assert_allclose(asked["point_coords"][0], coordinates)
    assert asked["orig_im_size"].tolist() == [HEIGHT, WIDTH]
    assert asked["has_mask_input"].tolist() == [0]
    assert asked["mask_input"].shape == (1, 1, 4 * SIDE, 4 * SIDE)
    assert {array.dtype for array in asked.values()} == {np.dtype(np.float32)}
    # Red and black by the published means and deviations; zeros where the picture does not reach.
    np.testing.assert_allclose(pixels[0, :, 15, 35], [2.2489083, -2.0357142, -1.8044444], rtol=1e-5)
    np.testing.assert_allclose(pixels[0, :, 2, 2], [-2.1179039, -2.0357142, -1.8044444], rtol=1e-5)
    assert not pixels[0, :, SIDE // 2 :].any()


def test_one_picture_is_encoded_once(
    pair: tuple[Path, Path], picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    segment = Sam(*pair)
    for image in (picture, picture, picture.copy(), picture[:, ::-1]):
        find_mask(Box(90, 30, 200, 100), image, segment)
    assert ["x" in call for call in spy.calls] == [True, False, False, False, True, False]


def test_a_buffer_that_is_filled_anew_is_another_picture(pair: tuple[Path, Path], picture: np.ndarray) -> None:
    segment, frame = Sam(*pair), picture.copy()
    find_mask(Box(90, 30, 200, 100), frame, segment)
    frame[...] = np.roll(picture, 60, axis=1)
    found = find_mask(Box(150, 30, 250, 100), frame, segment)
    assert (found & block(frame)).sum() > 0.9 * (found | block(frame)).sum()


def test_a_scribble_asks_with_some_of_its_pixels(
    pair: tuple[Path, Path], picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    strokes = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    strokes[60, 100:180] = (0, 255, 0)
    strokes[5, 5:90] = (255, 0, 0)
    spy = Spy(monkeypatch)
    find_mask(Scribble(strokes), picture, Sam(*pair))
    labels = spy.calls[1]["point_labels"][0].tolist()
    assert labels == [1] * 16 + [0] * 16 + [-1]


def test_no_region_is_an_error(pair: tuple[Path, Path]) -> None:
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    with pytest.raises(GarMaskError, match="region 3: the SAM decoder sees no region at 90,30,200,100"):
        find_mask(Box(90, 30, 200, 100), black, Sam(*pair), "region 3")


def test_graphs_of_another_kind_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    encoder, decoder = pair
    with pytest.raises(GarBackendError, match=r"none.onnx: no such SAM graph"):
        Sam(tmp_path / "none.onnx", decoder)
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(GarBackendError, match=r"text.onnx: cannot be loaded"):
        Sam(encoder, tmp_path / "text.onnx")
    with pytest.raises(GarBackendError, match=r"decoder.onnx: not a SAM image encoder"):
        Sam(decoder, decoder)
    with pytest.raises(
        GarBackendError, match=r"encoder.onnx: not a SAM mask decoder, it lacks image_embeddings, .*export_onnx_model"
    ):
        Sam(encoder, encoder)


def test_a_graph_that_fails_is_one_line(pair: tuple[Path, Path], picture: np.ndarray, tmp_path: Path) -> None:
    other = save(tmp_path / "encoder.onnx", ENCODER.replace(f"{SIDE},{SIDE}", "32,32"))
    with pytest.raises(GarBackendError, match=r"^the SAM graph failed: (?!.*\n)"):
        find_mask(Box(90, 30, 200, 100), picture, Sam(other, pair[1]))


# Pairs as they are exported elsewhere: the decoder gives what is red in the features.

PIXELS = f"float[1,3,{SIDE},{SIDE}]"
OFFICIAL = "float[1,1,m,m] mask_input, float[1] has_mask_input, {size}[2] orig_im_size"
FROZEN = """corner = Constant<value_ints = [0, 0]>() end = Constant<value_ints = [43, 64]>()
  axes = Constant<value_ints = [2, 3]>() ones = Constant<value_ints = [1, 1]>()
  cut = Slice(low_res_masks, corner, end, axes) size = Cast<to = 7>(orig_im_size)
  sizes = Concat<axis = 0>(ones, size) masks = Resize<mode = "linear">(cut, , , sizes)"""
TAKE_RED = """zero = Constant<value_ints = [0]>() one = Constant<value_ints = [1]>() wide = Cast<to = 1>({features})
  low_res_masks = Slice(wide, zero, one, one) score = Constant<value_floats = [0.9]>()
  rows = Constant<value_ints = [1, 1]>()
  {scores} = Reshape(score, rows)"""


def encoder(folder: Path, pixels: str, body: str, gives: str = f"{PIXELS} image_embeddings") -> Path:
    return save(
        folder / "encoder.onnx",
        f'<ir_version: 8, opset_import: ["" : 17]>\nencoder ({pixels} x) => ({gives}) {{ {body} }}',
    )


def decoder(
    folder: Path,
    features: str = f"{PIXELS} image_embeddings",
    labels: str = "float",
    size: str = "float",
    official: bool = True,
) -> Path:
    """Official: full-size masks frozen to a picture of 3:2, as of the package on PyPI. Else low resolution alone."""
    name, scores = features.split(",")[3].rsplit(maxsplit=1)[-1], "iou_predictions" if official else "scores"
    asked = f", {OFFICIAL.format(size=size)}" if official else ""
    given = "float[1,1,a,b] low_res_masks, float[1,1,h,w] masks" if official else "float[1,1,a,b] masks"
    body = TAKE_RED.format(features=name, scores=scores) + (FROZEN if official else " masks = Identity(low_res_masks)")
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
decoder ({features}, float[1,n,2] point_coords, {labels}[1,n] point_labels{asked}) => ({given}, float[1,1] {scores}) {{
  {body}
}}"""
    return save(folder / "decoder.onnx", text)


SAME = "image_embeddings = Identity(x)"
PAIRS = {
    "as exported by the package": (PIXELS, SAME, {}),
    "whole numbers": (PIXELS, SAME, {"labels": "int64", "size": "int64"}),
    "half precision": (
        PIXELS.replace("float", "float16"),
        "image_embeddings = Cast<to = 10>(x)",
        {"features": f"{PIXELS.replace('float', 'float16')} image_embeddings"},
    ),
    "colours last": (f"float[1,{SIDE},{SIDE},3]", "image_embeddings = Transpose<perm = [0, 3, 1, 2]>(x)", {}),
    "bytes": (
        f"uint8[1,3,{SIDE},{SIDE}]",
        "wide = Cast<to = 1>(x) half = Constant<value_float = 128.0>() image_embeddings = Sub(wide, half)",
        {},
    ),
    "low resolution alone": (PIXELS, SAME, {"official": False}),
}


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("size", [(300, 200), (200, 300), (320, 180), (250, 250)])
def test_pairs_of_other_exports_find_the_region_in_any_picture(
    tmp_path: Path, kind: str, size: tuple[int, int]
) -> None:
    pixels, body, options = PAIRS[kind]
    gives = options.get("features", f"{PIXELS} image_embeddings")
    segment = Sam(encoder(tmp_path, pixels, body, gives), decoder(tmp_path, **options))
    image = np.zeros((size[1], size[0], 3), np.uint8)
    image[60:150, 40:160] = (255, 0, 0)
    found = find_mask(Box(35, 55, 165, 155), image, segment)
    assert (found & block(image)).sum() > 0.95 * (found | block(image)).sum()


def test_a_sam_2_pair_squeezes_the_picture_and_hands_on_all_features(tmp_path: Path) -> None:
    gives = f"{PIXELS} high_res_feats_0, {PIXELS} image_embed"
    both = "high_res_feats_0 = Identity(x) image_embed = Identity(x)"
    features = f"{PIXELS} image_embed, {PIXELS} high_res_feats_0"
    image = np.zeros((100, 300, 3), np.uint8)
    image[20:80, 90:210] = (255, 0, 0)
    segment = Sam(encoder(tmp_path, PIXELS, both, gives), decoder(tmp_path, features, official=False))
    found = find_mask(Box(85, 15, 215, 85), image, segment)
    assert (found & block(image)).sum() > 0.93 * (found | block(image)).sum()
    lone = encoder(tmp_path, PIXELS, "image_embed = Identity(x)", f"{PIXELS} image_embed")
    with pytest.raises(
        GarBackendError, match=r"encoder.onnx: does not give high_res_feats_0, which .*decoder.onnx takes"
    ):
        Sam(lone, decoder(tmp_path, features, official=False))


def test_a_decoder_that_asks_for_something_else_is_refused(tmp_path: Path) -> None:
    path = decoder(tmp_path, official=False)
    model = onnx.load(path)
    model.graph.input.append(onnx.helper.make_tensor_value_info("text", onnx.TensorProto.FLOAT, [1, 8]))
    onnx.save(model, path)
    with pytest.raises(GarBackendError, match=r"decoder.onnx: takes text \(tensor\(float\)\), which no SAM"):
        Sam(encoder(tmp_path, PIXELS, SAME), path)
