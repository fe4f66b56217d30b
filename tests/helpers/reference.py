"""GAR once more, naively: the independent truth that the project's own model is tested against.

The vision tower is timm's arithmetic written out (interleaved RoPE, LayerScale and 3-channel mask convolution left
unfolded, pooling after the second linear), RoIAlign is ONNX Runtime's own operator on the merged map, the decoder is
transformers' Llama. Nothing here imports the modules under test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from onnx import helper
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

V = "mllm.model.vision_tower.timm_model."
P = "mllm.model.multi_modal_projector."
L = "mllm.model.language_model."

GetTensor = Callable[[str], Tensor]


def features(get: GetTensor, config: Mapping[str, Any], pixels: Tensor, mask: Tensor) -> Tensor:
    """Pixels [T,3,h,w], mask [T,h,w] 0/1 -> features [T,P,C]."""
    mllm = config["mllm_config"]
    args = mllm["vision_config"]["model_args"]
    cls = mllm["vision_use_cls_token"]
    heads, patch = args["num_heads"], args["patch_size"]
    x = F.conv2d(pixels, get(V + "patch_embed.proj.weight"), stride=patch)
    x = x + F.conv2d(mask[:, None].expand(-1, 3, -1, -1), get("mask_patch_embedding.weight"), stride=patch)
    x = x.flatten(2).transpose(1, 2)
    if cls:
        x = torch.cat([get(V + "cls_token").expand(len(x), -1, -1), x], dim=1)
    x = x + get(V + "pos_embed")
    dim = x.shape[-1]
    x = F.layer_norm(x, (dim,), get(V + "norm_pre.weight"), get(V + "norm_pre.bias"), 1e-5)
    sin, cos = _rope(args, dim // heads, 1.0 if cls else 0.0)
    for i in range(args["depth"]):
        b = f"{V}blocks.{i}."
        h = F.layer_norm(x, (dim,), get(b + "norm1.weight"), get(b + "norm1.bias"), 1e-5)
        q, k, v = (
            F.linear(h, get(b + "attn.qkv.weight"), get(b + "attn.qkv.bias"))
            .reshape(len(x), -1, 3, heads, dim // heads)
            .permute(2, 0, 3, 1, 4)
        )
        start = 1 if cls else 0
        q, k = (torch.cat([t[:, :, :start], _turn(t[:, :, start:], sin, cos)], dim=2) for t in (q, k))
        weights = (q @ k.transpose(-1, -2) / (dim // heads) ** 0.5).softmax(-1)
        a = (weights @ v).transpose(1, 2).flatten(2)
        x = x + get(b + "gamma_1") * F.linear(a, get(b + "attn.proj.weight"), get(b + "attn.proj.bias"))
        h = F.layer_norm(x, (dim,), get(b + "norm2.weight"), get(b + "norm2.bias"), 1e-5)
        h = F.gelu(F.linear(h, get(b + "mlp.fc1.weight"), get(b + "mlp.fc1.bias")))
        x = x + get(b + "gamma_2") * F.linear(h, get(b + "mlp.fc2.weight"), get(b + "mlp.fc2.bias"))
    if cls:
        x = x[:, 1:]
    x = F.gelu(F.linear(x, get(P + "linear_1.weight"), get(P + "linear_1.bias")))
    x = F.linear(x, get(P + "linear_2.weight"), get(P + "linear_2.bias"))
    side = round(x.shape[1] ** 0.5)
    x = x.transpose(1, 2).unflatten(2, (side, side))
    return F.adaptive_avg_pool2d(x, side // mllm["projector_pooling_ratio"]).flatten(2).transpose(1, 2)


def _rope(args: Mapping[str, Any], head_dim: int, offset: float) -> tuple[Tensor, Tensor]:
    grid = args["img_size"][0] // args["patch_size"]
    bands = 1.0 / 1e4 ** (torch.arange(head_dim // 4) / (head_dim // 4))
    t = (torch.arange(grid) + offset) / grid * args["ref_feat_shape"][0]
    x, y = torch.meshgrid(t, t, indexing="xy")
    angles = torch.stack([x, y], dim=-1)[..., None] * bands  # [grid,grid,2,head_dim/4]
    angles = angles.reshape(grid * grid, -1).repeat_interleave(2, -1)
    return angles.sin(), angles.cos()


def _turn(x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return x * cos + turned * sin


def roi_align(tiles: np.ndarray, grid: tuple[int, int], boxes: np.ndarray, scale: float) -> np.ndarray:
    """Features [T,P,C] -> replayed [R,P,C] by ONNX Runtime's RoiAlign, with the released code's double scale."""
    columns, rows = grid
    side, channels = round(tiles.shape[1] ** 0.5), tiles.shape[2]
    feature_map = tiles[1:].reshape(rows, columns, side, side, channels).transpose(4, 0, 2, 1, 3)
    feature_map = np.ascontiguousarray(feature_map.reshape(1, channels, rows * side, columns * side), np.float32)
    cells = boxes * np.array([columns * side, rows * side] * 2, np.float32)
    node = helper.make_node(
        "RoiAlign", ["x", "rois", "batch"], ["y"], output_height=side, output_width=side, sampling_ratio=2,
        spatial_scale=scale, coordinate_transformation_mode="half_pixel", mode="avg",
    )  # fmt: skip
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "roi",
        [tensor("x", 1, [1, channels, None, None]), tensor("rois", 1, [None, 4]), tensor("batch", 7, [None])],
        [tensor("y", 1, ["r", channels, side, side])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=9)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {"x": feature_map, "rois": cells.astype(np.float32), "batch": np.zeros(len(boxes), np.int64)}
    (out,) = session.run(None, feed)
    return out.transpose(0, 2, 3, 1).reshape(len(boxes), side * side, channels)


def llama(get: GetTensor, config: Mapping[str, Any], tied: bool) -> LlamaForCausalLM:
    """Transformers' Llama with the checkpoint's weights."""
    text = dict(config["mllm_config"]["text_config"])
    text.pop("model_type", None)
    model = LlamaForCausalLM(LlamaConfig(**text, attn_implementation="eager")).eval()
    state = {}
    for name in model.state_dict():
        source = ("mllm.model.language_model." + name.removeprefix("model.")) if name != "lm_head.weight" else None
        head = L + "embed_tokens.weight" if tied else "mllm.lm_head.weight"
        state[name] = get(source or head)
    model.load_state_dict(state)
    return model
