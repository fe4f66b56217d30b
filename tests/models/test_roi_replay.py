"""Feature replay against ONNX Runtime's RoiAlign: torch, and the exported node's body."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from helpers import reference
from helpers.shapes import SHAPES

from gar_edge.export.replay_graph import replay_model
from gar_edge.models.config import parse_config
from gar_edge.models.replay import replay
from gar_edge.runtime.gar import Gar

SCALES = [1 / 28, 0.3, 1.0, 1.7]
BOXES = {
    "inside": [0.2, 0.3, 0.7, 0.8],
    "whole image": [0.0, 0.0, 1.0, 1.0],
    "one pixel": [0.4, 0.4, 0.4, 0.4],
    "one line": [0.1, 0.5, 0.9, 0.5],
    "beyond the edges": [-0.4, -0.2, 1.3, 1.6],
    "outside": [1.5, 1.5, 1.9, 1.9],
    "inverted": [0.8, 0.9, 0.2, 0.1],
    "last pixel": [0.999, 0.999, 0.999, 0.999],
}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("grid", [(1, 1), (3, 2), (1, 5)])
def test_torch_replay_is_roi_align(scale: float, grid: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    features = random.standard_normal((1 + grid[0] * grid[1], 16, 5)).astype(np.float32)
    boxes = np.array([*BOXES.values(), *random.random((30, 4))], np.float32)
    expected = reference.roi_align(features, grid, boxes, scale)
    found = replay(torch.from_numpy(features), grid, torch.from_numpy(boxes), scale).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", sorted(SHAPES))
def test_exported_replay_is_roi_align(scale: float, name: str) -> None:
    config = parse_config(SHAPES[name].config() | {"replay_spatial_scale": scale})
    model = ir.to_proto(replay_model(config, ir.DataType.FLOAT))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(2)
    for grid in [(1, 1), (2, 3), (4, 1)]:
        shape = (1 + grid[0] * grid[1], config.tile_tokens, config.text.hidden)
        features = random.standard_normal(shape).astype(np.float32)
        boxes = np.array([*BOXES.values(), *random.random((10, 4))], np.float32)
        feed = {"features": features, "grid": np.array(grid), "boxes": boxes}
        (found,) = session.run(None, feed)
        expected = reference.roi_align(features, grid, boxes, scale)
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_box_over_one_tile_at_scale_one_averages_neighbouring_cells() -> None:
    # One tile of 2x2 cells, values 0 1 / 2 3. The whole map as box: bin 0 samples at y = -0.25 and 0.25, which
    # clamp to rows 0 and 0.25; so rows weigh (0 + 0.25) / 2 = 0.125 of the second. Bin 1 mirrors it.
    features = torch.tensor([[[9.0]] * 4, [[0.0], [1.0], [2.0], [3.0]]])
    out = replay(features, (1, 1), torch.tensor([[0.0, 0.0, 1.0, 1.0]]), 1.0)
    expected = [0.125 * 2 + 0.125, 0.125 * 2 + 0.875, 0.875 * 2 + 0.125, 0.875 * 2 + 0.875]
    np.testing.assert_allclose(out.flatten().numpy(), expected, atol=1e-6)


def test_the_thumbnail_is_left_out() -> None:
    features = torch.rand(3, 16, 4)
    box = torch.tensor([[0.1, 0.1, 0.9, 0.9]])
    before = replay(features, (2, 1), box, 1.0)
    features[0] = 1e3
    assert torch.equal(before, replay(features, (2, 1), box, 1.0))


def test_the_graph_is_one_node_with_the_plugins_attributes(bundle: Path) -> None:
    model = ir.load(bundle / "roi_replay.onnx")
    (node,) = list(model.graph)
    manifest = Gar.load(bundle).manifest
    assert (node.domain, node.op_type) == ("gar", "RoiReplay")
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    assert attributes["plugin_namespace"] == "gar"
    assert attributes["sampling_ratio"] == manifest.replay.sampling_ratio == 2
    assert attributes["spatial_scale"] == pytest.approx(manifest.replay.spatial_scale)
    assert attributes["output_size"] ** 2 == manifest.dimensions.tile_tokens
    assert {node.domain for function in model.functions.values() for node in function} == {""}
