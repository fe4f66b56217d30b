"""What the released GAR code computed, from the command line and at every stage inside."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from gar_edge.runtime.gar import Gar
from gar_edge.runtime.generate.options import Options
from gar_edge.runtime.images.loading import load_image
from gar_edge.runtime.images.mask_images import load_mask
from gar_edge.runtime.images.preprocess import cut_mask, cut_tiles
from gar_edge.runtime.images.shape import mask_box
from gar_edge.runtime.model.start import start_sequence

GOLDEN = Path(os.environ.get("GAR_EDGE_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
MODELS = ("gar-tiny-1b", "gar-tiny-8b")
CASES = ("pair_tall", "relation_three", "single_full", "single_tiny_image", "single_wide_four_tiles")
CLOSE_CALL = 0.02  # a margin below which a pixel's last bit may decide

pytestmark = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="golden cases of the released code are not here (GAR_EDGE_GOLDEN names their folder)"
)


@pytest.fixture(scope="module", params=MODELS)
def golden_bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A bundle made by `gar-export --checkpoint`, validation included."""
    folder = tmp_path_factory.mktemp("golden") / request.param
    command = [sys.executable, "-m", "gar_edge.export.cli", "--checkpoint", str(GOLDEN / request.param / "checkpoint")]
    done = subprocess.run([*command, "-o", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "✗" not in done.stdout
    return request.param, folder


@pytest.fixture(scope="module")
def gar(golden_bundle: tuple[str, Path]) -> Gar:
    return Gar.load(golden_bundle[1])


def read_case(model: str, name: str) -> tuple[Path, dict[str, Any], dict[str, np.ndarray]]:
    folder = GOLDEN / model / "cases" / name
    return folder, json.loads((folder / "case.json").read_text()), load_file(folder / "expected.safetensors")


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("name", CASES)
def test_gar_run_gives_the_released_tokens(golden_bundle: tuple[str, Path], name: str) -> None:
    model, bundle = golden_bundle
    folder, case, _ = read_case(model, name)
    command = [
        sys.executable,
        "-m",
        "gar_edge.runtime.cli.run",
        str(GOLDEN / "images" / case["image"]),
        "-m",
        str(bundle),
    ]
    command += ["--json", "--max-new-tokens", str(case["max_new_tokens"]), "--max-tiles", str(case["max_num_tiles"])]
    for number in case["prompts"]:
        command += ["--mask", f"{number}={folder / f'mask_{number}.png'}"]
    if case["question"] is not None:
        command += ["-q", case["question"]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["grid"] == case["grid"]
    assert answer["prompt_tokens"] == case["prompt_length"]
    certain = next((i for i, margin in enumerate(case["margins"]) if margin < CLOSE_CALL), len(case["tokens"]))
    assert certain > 0
    assert answer["tokens"][:certain] == case["tokens"][:certain]
    if answer["tokens"] == case["tokens"]:
        assert answer["text"] == case["text"]


@pytest.mark.parametrize("name", CASES)
def test_preprocessing_equals_the_released_pixels(gar: Gar, golden_bundle: tuple[str, Path], name: str) -> None:
    folder, case, expected = read_case(golden_bundle[0], name)
    spec = gar.manifest.preprocess
    tiles = cut_tiles(load_image(GOLDEN / "images" / case["image"]), spec, case["max_num_tiles"])
    mean, std = (np.array(values)[:, None, None] for values in (spec.mean, spec.std))
    values = ((tiles.pixels * spec.rescale - mean) / std).ravel()
    equal = np.abs(values[expected["pixel_probe_index"]] - expected["pixel_probe_value"]) < 1e-5
    assert equal.mean() >= 0.999
    masks = {number: load_mask(folder / f"mask_{number}.png") for number in case["prompts"]}
    found = cut_mask(masks, tiles.grid, spec, len(gar.manifest.prompt.regions))
    if expected["tile_mask"].ndim == 3:
        np.testing.assert_array_equal(found, expected["tile_mask"])
    else:
        np.testing.assert_allclose(found.mean(axis=(1, 2)), expected["tile_mask"], atol=1e-7)
    for number, mask in masks.items():
        np.testing.assert_allclose(mask_box(mask), case["boxes"][str(number)], rtol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_prompt_ids_equal_the_released_ones(gar: Gar, golden_bundle: tuple[str, Path], name: str) -> None:
    _, case, expected = read_case(golden_bundle[0], name)
    ids = gar.pipeline.prompts.build(case["question"], case["prompts"], len(expected["features"])).tolist()
    assert len(ids) == case["prompt_length"]
    assert ids[: len(case["prompt_ids_head"])] == case["prompt_ids_head"]
    assert ids[-len(case["prompt_ids_tail"]) :] == case["prompt_ids_tail"]


@pytest.mark.parametrize("name", CASES)
def test_features_replay_and_logits(gar: Gar, golden_bundle: tuple[str, Path], name: str) -> None:
    """Fed the released pixels where a case has them, our own (which differ in a bit here and there) otherwise."""
    folder, case, expected = read_case(golden_bundle[0], name)
    tiles = cut_tiles(load_image(GOLDEN / "images" / case["image"]), gar.manifest.preprocess, case["max_num_tiles"])
    pixels = expected.get("pixels_uint8", tiles.pixels)
    masks = {number: load_mask(folder / f"mask_{number}.png") for number in case["prompts"]}
    mask = cut_mask(masks, tiles.grid, gar.manifest.preprocess, len(gar.manifest.prompt.regions))
    features = gar.pipeline.vision.encode(pixels, mask)
    limit = 1e-4 if "pixels_uint8" in expected else 1e-3
    assert relative(features.read(), expected["features"]) < limit
    replayed = gar.pipeline.vision.roi_replay(
        features, tiles.grid, [mask_box(masks[number]) for number in case["prompts"]]
    )
    assert relative(replayed.read(), expected["replay"]) < limit

    ids = gar.pipeline.prompts.build(case["question"], case["prompts"], len(pixels))
    embeds = np.array(gar.pipeline.bundle.token_table[ids])
    hidden = embeds.shape[1]
    embeds[ids == gar.manifest.prompt.image_token] = features.read().reshape(-1, hidden)
    for index, number in enumerate(case["prompts"]):
        embeds[ids == gar.manifest.prompt.replay_tokens[number]] = replayed.read()[index]
    sequence = start_sequence(gar.pipeline.decoder, len(ids))
    buffer = gar.pipeline.backend.empty(embeds.shape, gar.pipeline.decoder.dtype)
    buffer.write(embeds)
    logits = [
        sequence.prefill(buffer.rows(begin, min(begin + 1000, len(ids)))).logits() for begin in range(0, len(ids), 1000)
    ]
    assert relative(logits[-1][0], expected["logits"][0]) < 1e-3


@pytest.mark.parametrize("name", CASES)
def test_logprobs_are_the_released_logits_softmax(gar: Gar, golden_bundle: tuple[str, Path], name: str) -> None:
    """Of the first token, by `Options.logprobs`; the released code stored the logits before it."""
    folder, case, expected = read_case(golden_bundle[0], name)
    masks = {number: folder / f"mask_{number}.png" for number in case["prompts"]}
    scene = gar.open(GOLDEN / "images" / case["image"], max_tiles=case["max_num_tiles"])
    truth = torch.from_numpy(expected["logits"][0]).double().log_softmax(-1).numpy()
    options = Options(max_new_tokens=1, logprobs=5)
    answer = scene.stream(case["question"], masks, options=options).finish()
    assert answer.logprobs is not None
    (first,) = answer.logprobs
    assert first.logprob == pytest.approx(truth[first.token], abs=1e-3)
    found = [one.logprob for one in first.likeliest]
    np.testing.assert_allclose(found, np.sort(truth)[::-1][:5], atol=1e-3)
    np.testing.assert_allclose([truth[one.token] for one in first.likeliest], found, atol=1e-3)


@pytest.mark.skipif(not (GOLDEN.parent / "calib").is_dir(), reason="the calibration pictures are not here")
@pytest.mark.parametrize("model", MODELS)
def test_int8_features_stay_close_to_the_released_ones(model: str, tmp_path: Path) -> None:
    """Calibrated on photographs, judged on the golden pictures."""
    command = [sys.executable, "-m", "gar_edge.export.cli", "--checkpoint", str(GOLDEN / model / "checkpoint")]
    command += [
        "--int8",
        "--calib-data",
        str(GOLDEN.parent / "calib"),
        "--calib-samples",
        "8",
        "-o",
        str(tmp_path / "b"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    gar = Gar.load(tmp_path / "b")
    for name in CASES:
        folder, case, expected = read_case(model, name)
        tiles = cut_tiles(load_image(GOLDEN / "images" / case["image"]), gar.manifest.preprocess, case["max_num_tiles"])
        pixels = expected.get("pixels_uint8", tiles.pixels)
        masks = {number: load_mask(folder / f"mask_{number}.png") for number in case["prompts"]}
        mask = cut_mask(masks, tiles.grid, gar.manifest.preprocess, len(gar.manifest.prompt.regions))
        found, wanted = gar.pipeline.vision.encode(pixels, mask).read().ravel(), expected["features"].ravel()
        assert found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted) >= 0.995
