"""The encoder against timm's arithmetic written out, in torch and in the exported graph."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import reference
from helpers.shapes import SHAPES

from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.config import Preprocessing
from gar_edge.models.vision import ByteEncoder, Encoder
from gar_edge.models.weights import build_module, encoder_recipes, load_parameters
from gar_edge.runtime.gar import Gar


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.fixture(scope="module")
def tiles(checkpoint: Checkpoint) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [5,3,h,w] uint8 and a mask that is empty in one tile and full in another."""
    random = np.random.default_rng(0)
    side = checkpoint.config.vision.tile
    mask = random.random((5, side, side)) < 0.4
    mask[1], mask[2] = False, True
    return random.integers(0, 256, (5, 3, side, side), np.uint8), mask


@pytest.fixture(scope="module")
def expected(checkpoint: Checkpoint, tiles: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    pixels, mask = tiles
    values = (torch.from_numpy(pixels).float() / 255 - 0.5) / 0.5
    config = SHAPES[checkpoint.name].config()
    return reference.features(checkpoint.weights.tensor, config, values, torch.from_numpy(mask).float()).numpy()


def test_torch_encoder_equals_the_unfolded_model(
    checkpoint: Checkpoint, tiles: tuple[np.ndarray, np.ndarray], expected: np.ndarray
) -> None:
    module = build_module(Encoder, checkpoint.config, torch.float32)
    load_parameters(module, encoder_recipes(checkpoint.config), checkpoint.weights)
    pixels, mask = tiles
    values = (torch.from_numpy(pixels).float() / 255 - 0.5) / 0.5
    with torch.inference_mode():
        found = module(values, torch.from_numpy(mask[:, None]).float()).numpy()
    assert relative(found, expected) < 1e-5


def test_exported_encoder_equals_the_unfolded_model(
    bundle: Path, tiles: tuple[np.ndarray, np.ndarray], expected: np.ndarray
) -> None:
    found = Gar.load(bundle).pipeline.vision.encode(*tiles).read()
    assert relative(found, expected) < 1e-5


def test_a_tile_does_not_depend_on_its_neighbours(bundle: Path, tiles: tuple[np.ndarray, np.ndarray]) -> None:
    vision, (pixels, mask) = Gar.load(bundle).pipeline.vision, tiles
    together = vision.encode(pixels, mask).read()
    alone = np.concatenate([vision.encode(pixels[i : i + 1], mask[i : i + 1]).read() for i in range(len(pixels))])
    assert relative(alone, together) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_bytes_are_normalised_by_channel(checkpoint: Checkpoint, dtype: torch.dtype) -> None:
    """In float32 whatever the model's type, and rounded to that once."""
    pixels = Preprocessing(checkpoint.config.vision.tile, 4, 1 / 255, (0.5, 0.4, 0.3), (0.5, 0.25, 0.2))
    module = build_module(lambda config: ByteEncoder(config, pixels), checkpoint.config, dtype)
    found = module.normalise(torch.tensor([[255, 255, 255], [0, 51, 102]], dtype=torch.uint8)[..., None, None])
    assert found.dtype is dtype
    expected = torch.tensor([[1.0, 2.4, 3.5], [-1.0, -0.8, 0.5]])[..., None, None]
    torch.testing.assert_close(found.float(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def test_the_exported_encoder_takes_bytes(bundle: Path) -> None:
    """A quarter of what floats would take to copy."""
    inputs = {port.name: port.dtype for port in Gar.load(bundle).manifest.graphs["encoder"].inputs}
    assert inputs == {"pixels": "uint8", "mask": "bool"}
