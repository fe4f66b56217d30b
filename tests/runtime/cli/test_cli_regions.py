"""gar-run's regions: every option gives the same answer as the mask that it stands for, and says what is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from gar_edge.runtime import AnswerStream, Box, Options, Points, Scene, Scribble
from gar_edge.runtime.cli.region_options import RegionArguments, choose_segmenter, read_arguments
from gar_edge.runtime.cli.run import app
from gar_edge.runtime.errors import GarBackendError, GarMaskError
from gar_edge.runtime.images.loading import load_image
from gar_edge.runtime.images.shape import pixel_box
from gar_edge.runtime.regions import box_mask, grabcut
from gar_edge.runtime.regions.labels import MaskFile

Given = dict[int | None, object]


def regions(described: bool = False, **arguments: list[str]) -> Given:
    found = read_arguments(RegionArguments(**arguments), "photo.png", described)
    return {number: given.region for number, given in found.items()}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"box": ["1,2,30,40"]}, {0: Box(1, 2, 30, 40)}),
        ({"box": ["3=0.1,.2,1,1.", "1,2,3,4"]}, {3: Box(0.1, 0.2, 1, 1, True), 0: Box(1, 2, 3, 4)}),
        ({"box": ["0,0,1,1"]}, {0: Box(0, 0, 1, 1)}),
        ({"box": ["0,0,1.5,1"]}, {0: Box(0, 0, 1.5, 1)}),
        ({"point": ["5,6", "7,8"]}, {0: Points([(5, 6), (7, 8)], [])}),
        ({"point": ["5,6", "1=7,8"], "not_point": ["1=0,0"]}, {1: Points([(7, 8)], [(0, 0)]), 0: Points([(5, 6)], [])}),
        ({"point": ["0.5,0.5"], "not_point": ["0,1"]}, {0: Points([(0.5, 0.5)], [(0, 1)], fractions=True)}),
        ({"box": ["2=1,2,30,40"], "point": ["2=5,6"]}, {2: Points([(5, 6)], [], Box(1, 2, 30, 40))}),
        ({"box": ["2=1,2,30,40"], "not_point": ["2=5,6"]}, {2: Points([], [(5, 6)], Box(1, 2, 30, 40))}),
        ({"box": ["2=1,2,30,40"], "point": ["5,6"]}, {2: Box(1, 2, 30, 40), 0: Points([(5, 6)], [])}),
        ({"scribble": ["a.png", "4=b.png"]}, {4: Scribble("b.png"), 0: Scribble("a.png")}),
        ({"mask": ["labels.png#12"]}, {0: MaskFile(Path("labels.png"), 12)}),
    ],
)
def test_arguments_become_regions(arguments: dict[str, list[str]], expected: Given) -> None:
    assert regions(**arguments) == expected


def test_a_file_called_like_a_label_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a#1").touch()
    assert regions(mask=["a#1"]) == {0: "a#1"}


def test_a_single_region_without_a_number_is_for_the_bundle_to_number() -> None:
    assert regions(True, box=["1,2,3,4"]) == {None: Box(1, 2, 3, 4)}
    assert regions(True, point=["1,2", "3,4"]) == {None: Points([(1, 2), (3, 4)], [])}
    assert regions(True, box=["1=1,2,3,4"]) == {1: Box(1, 2, 3, 4)}


def test_files_number_their_regions(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps([{"box": [1, 2, 3, 4]}, {"box": [5, 6, 7, 8]}]))
    assert list(regions(regions=[str(path)])) == [0, 1]
    assert list(regions(regions=[f"2={path}"])) == [2, 3]
    path.write_text(json.dumps({"4": {"box": [1, 2, 3, 4]}}))
    assert list(regions(regions=[str(path)])) == [4]
    path.write_text(json.dumps([{"box": [1, 2, 3, 4]}]))
    assert list(regions(True, regions=[str(path)])) == [None]
    Image.fromarray(np.array([[0, 9], [3, 3]], np.uint8)).save(tmp_path / "labels.png")
    found = regions(regions=[str(tmp_path / "labels.png")])
    assert np.array_equal(found[0], [[False, False], [True, True]])
    assert np.array_equal(found[1], [[False, True], [False, False]])


def test_regions_keep_the_order_in_which_they_are_given() -> None:
    assert list(regions(mask=["3=a.png", "0=b.png", "2=c.png"])) == [3, 0, 2]
    assert list(regions(mask=["a.png", "4=b.png", "c.png"])) == [0, 4, 1]
    assert list(regions(box=["3=1,2,3,4", "1=1,2,3,4"], mask=["2=a.png"])) == [2, 3, 1]


def test_one_region_of_a_file_is_chosen_by_its_id_or_place(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps([{"box": [1, 2, 3, 4]}, {"box": [5, 6, 7, 8]}]))
    assert regions(True, regions=[f"{path}#1"]) == {None: Box(5, 6, 7, 8)}
    assert regions(regions=[f"3={path}#0", f"{path}#1"]) == {3: Box(1, 2, 3, 4), 0: Box(5, 6, 7, 8)}
    assert regions(regions=["labels.png#12"]) == {0: MaskFile(Path("labels.png"), 12)}
    with pytest.raises(GarMaskError, match=r"r\.json: has no region 7 in photo\.png; it has 0, 1"):
        regions(regions=[f"{path}#7"])


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"box": ["1,2,3"]}, "'1,2,3' is not"),
        ({"box": ["1,2,3,x"]}, "left,upper,right,lower"),
        ({"box": ["1,2,3,1e9"]}, "is not"),
        ({"box": ["1,2,nan,4"]}, "is not"),
        ({"box": ["k=1,2,3,4"]}, "is not"),
        ({"box": [""]}, "is not"),
        ({"box": ["30,2,3,4"]}, "no extent"),
        ({"box": ["0=1,2,3,4", "0=1,2,3,4"]}, "region 0 is given twice"),
        ({"mask": ["0=a.png"], "box": ["0=1,2,3,4"]}, "region 0 is given twice"),
        ({"point": ["1"]}, "x,y"),
        ({"not_point": ["1,2"]}, "no point lies inside"),
        ({"mask": ["a.png"], "box": ["1,2,3,4"]}, "need their numbers"),
        ({"point": ["1,2"], "box": ["1,2,3,4"]}, "need their numbers"),
    ],
)
def test_arguments_that_are_wrong_are_usage_errors(arguments: dict[str, list[str]], part: str) -> None:
    with pytest.raises(typer.BadParameter, match=part):
        regions(**arguments)


def test_segmenters_are_chosen_by_their_options(tmp_path: Path) -> None:
    assert choose_segmenter(False, None, None, 0) is grabcut
    assert choose_segmenter(True, None, None, 0) is box_mask
    with pytest.raises(typer.BadParameter, match="go together"):
        choose_segmenter(False, tmp_path, None, 0)
    with pytest.raises(typer.BadParameter, match="drop one"):
        choose_segmenter(True, tmp_path, tmp_path, 0)
    with pytest.raises(GarBackendError, match="no such SAM graph"):
        choose_segmenter(False, tmp_path / "a.onnx", tmp_path / "b.onnx", 0)


# The command, in this process

WIDTH, HEIGHT = 130, 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, picture: np.ndarray) -> Path:
    """photo.png: a dark block on the fixture's gradients."""
    folder = tmp_path_factory.mktemp("regions")
    image = picture.copy()
    image[20:60, 30:80] = (10, 10, 40)
    Image.fromarray(image).save(folder / "photo.png")
    return folder


def ask(folder: Path, bundle: Path, *arguments: str, code: int = 0) -> str:
    """gar-run's output; with `code` 1 or 2, what it raises."""
    tokens = ("-m", str(bundle), "--max-new-tokens", "8")
    done = CliRunner().invoke(app, [str(folder / "photo.png"), *arguments, *tokens], standalone_mode=False)
    if code:
        assert done.exception is not None
        assert isinstance(done.exception, typer.BadParameter if code == 2 else GarMaskError), done.exception
        return str(done.exception)
    assert done.exception is None, done.exception
    return done.stdout


def test_boxes_are_cut_out_or_taken_as_they_are(
    folder: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    stream = Scene.stream

    def note(scene: Scene, question: str | None, masks: dict[int, np.ndarray], *, options: Options) -> AnswerStream:
        seen.append(masks)
        return stream(scene, question, masks, options=options)

    monkeypatch.setattr(Scene, "stream", note)
    found = json.loads(ask(folder, tiny_bundle, "--box", "25,15,86,66", "--json"))
    ask(folder, tiny_bundle, "--box", "3=25,15,86,66", "--box-as-mask")
    photo, box = load_image(folder / "photo.png"), Box(25, 15, 86, 66)
    assert [list(masks) for masks in seen] == [[1], [3]]
    np.testing.assert_array_equal(seen[0][1], grabcut(photo, box))
    np.testing.assert_array_equal(seen[1][3], box_mask(photo, box))
    assert seen[0][1].sum() < seen[1][3].sum()
    assert len(found["tokens"]) == 8
    assert found["boxes"]["1"] == pixel_box(seen[0][1])


def test_the_overlay_is_written_beside_the_answer(folder: Path, tiny_bundle: Path) -> None:
    path = folder / "overlay.png"
    question = ("-q", "Is <Prompt0> on <Prompt3>?")
    ask(folder, tiny_bundle, "--box", "0=25,15,86,66", "--point", "3=50,40", *question, "--overlay", str(path))
    assert Image.open(path).width >= 640


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--box", "200,0,210,9"), "region: box 200,0,210,9 lies outside the picture, which is 130x90"),
        (("--box", "2=-9,0,-1,9"), "region 2: box -9,0,-1,9 lies outside"),
        (("--point", "130,9"), "point 130,9 lies outside"),
        (("--point", "1=5,5", "--not-point", "1=-5,5"), "point -5,5 lies outside"),
        ((), "no region given: mark one with --mask, --box"),
        (("-q", "What is <Prompt0>?"), "no region given"),
        (("--box", "1,2,30,40", "--box-as-mask", "-q", "What is it?"), "does not name <Prompt0>"),
        (("--box", "1,2,30,40", "--jsonl", "x"), "go together"),
        (("--box", "1,2,30,40", "--jobs", "x", "--jsonl", "y"), "with --jobs"),
    ],
)
def test_usage_errors(folder: Path, tiny_bundle: Path, arguments: tuple[str, ...], part: str) -> None:
    assert part in ask(folder, tiny_bundle, *arguments, code=2)


def test_files_that_are_wrong_are_no_usage_errors(folder: Path, tiny_bundle: Path) -> None:
    bad = folder / "bad.json"
    bad.write_text('[{"box": [500, 0, 510, 9]}]')
    assert "region: box 500,0,510,9 lies outside" in ask(folder, tiny_bundle, "--regions", str(bad), code=1)
    bad.write_text('[{"box": [5')
    assert "bad.json: not JSON" in ask(folder, tiny_bundle, "--regions", str(bad), code=1)
    assert "no such scribble file" in ask(folder, tiny_bundle, "--scribble", str(folder / "none.png"), code=1)
