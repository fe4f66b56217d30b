"""The replay graph: one `gar::RoiReplay` node, with a body of standard operators that any engine can inline.

TensorRT replaces the node by the plugin of that name; everyone else runs the body, which is
`gar_edge.models.replay.replay` written in ONNX's own text form.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from gar_edge.models.config import GarConfig
from gar_edge.models.ops import COMPAT_OPSET
from gar_edge.models.replay import SAMPLES

DOMAIN = "gar"
NODE = "RoiReplay"

# RoIAlign's weights [R,bins,length] along one axis, from the box's edges in cells; see `replay.axis_weights`.
_AXIS = """
  length_{a} = Cast <to: int = 1> (cells_{a})
  start_{a} = Mul (begin_{a}, length_{a})
  end_{a} = Mul (stop_{a}, length_{a})
  scaled_{a} = Mul (start_{a}, scale)
  first_{a} = Sub (scaled_{a}, half)
  extent_{a} = Sub (end_{a}, start_{a})
  span_{a} = Mul (extent_{a}, scale)
  bin_{a} = Div (span_{a}, bins_f)
  offset_{a} = Mul (bin_{a}, steps)
  at_{a} = Add (first_{a}, offset_{a})
  above_{a} = GreaterOrEqual (at_{a}, minus_one_f)
  below_{a} = LessOrEqual (at_{a}, length_{a})
  inside_{a} = And (above_{a}, below_{a})
  last_{a} = Sub (length_{a}, one_f)
  low_{a} = Max (at_{a}, zero_f)
  clamped_{a} = Min (low_{a}, last_{a})
  points_{a} = Unsqueeze (clamped_{a}, axis_2)
  count_{a} = Squeeze (cells_{a})
  range_{a} = Range (zero, count_{a}, one)
  centres_{a} = Cast <to: int = 1> (range_{a})
  delta_{a} = Sub (points_{a}, centres_{a})
  distance_{a} = Abs (delta_{a})
  slope_{a} = Sub (one_f, distance_{a})
  hat_{a} = Relu (slope_{a})
  gate_f_{a} = Cast <to: int = 1> (inside_{a})
  gate_{a} = Unsqueeze (gate_f_{a}, axis_2)
  taps_{a} = Mul (hat_{a}, gate_{a})
  split_{a} = Concat <axis: int = 0> (keep, side, samples_1, cells_{a})
  sampled_{a} = Reshape (taps_{a}, split_{a})
  weights_{a} = ReduceMean <keepdims: int = 0> (sampled_{a}, axis_2)
"""

_BODY = """
<domain: "gar", opset_import: ["" : {opset}]>
RoiReplay <output_size, sampling_ratio, spatial_scale> (features, grid, boxes) => (replayed)
{{
  scale = Constant <value_float: float = @spatial_scale> ()
  bins = Constant <value_int: int = @output_size> ()
  samples = Constant <value_int: int = @sampling_ratio> ()
  zero = Constant <value_int: int = 0> ()
  one = Constant <value_int: int = 1> ()
  zero_f = Constant <value_float: float = 0.0> ()
  one_f = Constant <value_float: float = 1.0> ()
  minus_one_f = Constant <value_float: float = -1.0> ()
  half = Constant <value_float: float = 0.5> ()
  keep = Constant <value_ints: ints = [0]> ()
  axis_1 = Constant <value_ints: ints = [1]> ()
  axis_2 = Constant <value_ints: ints = [2]> ()
  minus_one = Constant <value_ints: ints = [-1]> ()
  far = Constant <value_ints: ints = [9223372036854775807]> ()
  side = Reshape (bins, axis_1)
  samples_1 = Reshape (samples, axis_1)
  bins_f = Cast <to: int = 1> (bins)
  samples_f = Cast <to: int = 1> (samples)
  positions = Mul (bins, samples)
  indices = Range (zero, positions, one)
  indices_f = Cast <to: int = 1> (indices)
  centred = Add (indices_f, half)
  steps = Div (centred, samples_f)

  columns = Gather (grid, keep)
  rows = Gather (grid, axis_1)
  cells_y = Mul (rows, side)
  cells_x = Mul (columns, side)
  channels = Shape <start: int = 2, end: int = 3> (features)
  line = Mul (cells_x, channels)
  tiles = Slice (features, axis_1, far, keep)
  tiles_f = Cast <to: int = 1> (tiles)
  tiles_shape = Concat <axis: int = 0> (rows, columns, side, side, channels)
  split_tiles = Reshape (tiles_f, tiles_shape)
  joined = Transpose <perm: ints = [0, 2, 1, 3, 4]> (split_tiles)
  map_shape = Concat <axis: int = 0> (cells_y, line)
  map = Reshape (joined, map_shape)

  edges = Cast <to: int = 1> (boxes)
  begin_x, begin_y, stop_x, stop_y = Split <axis: int = 1, num_outputs: int = 4> (edges)
{axes}
  banded = MatMul (weights_y, map)
  lines_shape = Concat <axis: int = 0> (minus_one, side, cells_x, channels)
  lines = Reshape (banded, lines_shape)
  columns_weights = Unsqueeze (weights_x, axis_1)
  cells = MatMul (columns_weights, lines)
  tokens = Mul (side, side)
  out_shape = Concat <axis: int = 0> (minus_one, tokens, channels)
  out = Reshape (cells, out_shape)
  replayed = CastLike (out, features)
}}
"""


def replay_model(config: GarConfig, dtype: ir.DataType) -> ir.Model:
    """The whole graph: `features` [T,P,C], `grid` [2] int64, `boxes` [R,4] float32 -> `replayed` [R,P,C]."""
    tokens, hidden = config.tile_tokens, config.text.hidden
    features = ir.val("features", dtype, ["tiles", tokens, hidden])
    grid = ir.val("grid", ir.DataType.INT64, [2])
    boxes = ir.val("boxes", ir.DataType.FLOAT, ["regions", 4])
    node = ir.node(
        NODE,
        [features, grid, boxes],
        attributes={
            "output_size": config.tile_side,
            "sampling_ratio": SAMPLES,
            "spatial_scale": config.replay_spatial_scale,
            "plugin_namespace": DOMAIN,  # from TensorRT 10.15 on, the plugin wins only where this is said
        },
        domain=DOMAIN,
        name="roi_replay",
        outputs=[ir.val("replayed", dtype, ["regions", tokens, hidden])],
    )
    graph = ir.Graph(
        [features, grid, boxes],
        node.outputs,
        nodes=[node],
        opset_imports={"": COMPAT_OPSET, DOMAIN: 1},
        name="roi_replay",
    )
    return ir.Model(graph, ir_version=ir_version(COMPAT_OPSET), functions=[replay_function()])


def replay_function() -> ir.Function:
    """The local function behind the node."""
    axes = "".join(_AXIS.format(a=axis) for axis in "yx")
    return ir.serde.deserialize_function(onnx.parser.parse_function(_BODY.format(opset=COMPAT_OPSET, axes=axes)))


def ir_version(opset: int) -> int:
    """The oldest file format that can hold the opset, for the oldest reader."""
    return int(onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)]))
