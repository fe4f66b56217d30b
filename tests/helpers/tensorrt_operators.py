"""What the ONNX parsers of TensorRT read, by TensorRT's version: names of standard operators.

Sources, of https://github.com/onnx/onnx-tensorrt at the commit that https://github.com/NVIDIA/TensorRT pins as
`parsers/onnx` in the version's tag:

| TensorRT | commit | read in |
|---|---|---|
| 10.1 | 96e7811 | `onnxOpImporters.cpp`, every `DEFINE_BUILTIN_OP_IMPORTER`; restrictions: `docs/operators.md` |
| 10.3 | 62bdde2 | `docs/Changelog.md`, entries 10.2 and 10.3: no operator more, none fewer |
| 10.13 | 346bdca | `docs/Changelog.md`, entries 10.4 to 10.13 |
| 10.15 | fa5aa9f | `docs/operators.md`, every row marked Y; the changelog's entries 10.14 and 10.15 say the same |
| 11.1 | 7c51a63 | `docs/operators.md`, every row marked Y |
"""

from __future__ import annotations

NEWEST_OPSET = {"10.1": 20, "10.3": 20, "10.13": 20, "10.15": 24, "11.1": 24}
"""What each documents as its newest opset; 10.3 and 10.13 as 10.1, whose sentence no entry of the changelog amends."""

CONSTANT_INPUTS = {"ReduceMean": 1, "Slice": 3, "Squeeze": 1, "Unsqueeze": 1}
"""Inputs, by place, that 10.1 takes as initialisers or `Constant` nodes only: all are axes."""


def _names(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_10_1 = _names("""
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil Celu
    Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DeformConv DepthToSpace DequantizeLinear
    Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm
    GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid
    HardSwish Hardmax Identity If ImageScaler InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu
    Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min
    Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pad ParametricSoftplus Pow QuantizeLinear RNN
    RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
    ReverseSequence RoiAlign Round ScaledTanh Scan Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin
    Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile
    TopK Transpose Trilu Unsqueeze Upsample Where Xor
""")
_10_13 = _10_1 | {"BlackmanWindow", "HammingWindow", "HannWindow", "STFT"}
_10_15 = _10_13 | {"Attention", "RMSNormalization", "RotaryEmbedding", "TensorScatter"}

OPERATORS = {"10.1": _10_1, "10.3": _10_1, "10.13": _10_13, "10.15": _10_15, "11.1": _10_15 | {"Swish"}}
