"""`gar::RoiReplay` as TensorRT's ahead-of-time Python plugin: an engine carries the kernel's PTX and how to launch it.

Needed where an engine is built; running it takes neither this module nor a library. Such plugins exist since 10.9.
Name, namespace, version and attributes are the ONNX node's, and those of the C++ form.
"""

# No `from __future__ import annotations` here: tensorrt.plugin takes signatures apart and wants types, not their names.

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from gar_edge.runtime.engines.roi_replay_plugin.compiler import Compiler, find_compiler
from gar_edge.runtime.engines.roi_replay_plugin.device import current_architecture, load_module, unload_module
from gar_edge.runtime.engines.roi_replay_plugin.kernel import ENTRY, SAMPLES, Element, Variant, block_threads
from gar_edge.runtime.errors import GarBackendError

NAMESPACE = "gar"
NAME = "RoiReplay"
VERSION = "1"
PLUGIN = f"{NAMESPACE}::{NAME}"

# Attributes are arrays of one number: up to TensorRT 11.0 a plain `int` or `float` is made by a conversion that NumPy
# 2.4 refuses. Written out, as not every version recognises every form of `numpy.typing.NDArray`.
Int32Attribute = np.ndarray[Any, np.dtype[np.int32]]
Float32Attribute = np.ndarray[Any, np.dtype[np.float32]]


def register_replay_plugin() -> None:
    """Make TensorRT's ONNX parser replace the node `gar::RoiReplay` by the kernel. Calling it again does nothing.

    The kernel is compiled for the current CUDA device and loaded once here as a trial: what is missing is then said by
    this function and not in TensorRT's log. Raises `GarBackendError` where TensorRT has no ahead-of-time plugins, where
    there is no CUDA compiler or one newer than the driver, or where the C++ form of the plugin is loaded already.
    """
    try:
        import tensorrt as trt
        import tensorrt.plugin as trtp
    except ImportError as error:
        raise GarBackendError(
            f"TensorRT's Python plugins cannot be imported ({error}): install TensorRT 10.9 or later, or load the C++ "
            "plugin of export/plugin"
        ) from error
    if not hasattr(trtp, "KernelLaunchParams"):
        raise GarBackendError(
            f"TensorRT {trt.__version__} has no ahead-of-time Python plugins (10.9 and later have): load the C++ "
            "plugin of export/plugin, or build the node's own body"
        )
    if is_registered():
        return
    if trt.get_plugin_registry().get_creator(NAME, VERSION, NAMESPACE) is not None:
        raise GarBackendError(f"The C++ form of {PLUGIN} is loaded in this process already: use one form or the other")
    compiler = find_compiler()
    trial = compiler.ptx(Variant(Element.FLOAT16, output_size=1, spatial_scale=1.0), current_architecture())
    unload_module(load_module(trial))
    _define(compiler)


def is_registered() -> bool:
    """Whether `register_replay_plugin` did its work in this process."""
    registered = getattr(sys.modules.get("tensorrt.plugin"), "op", None)
    return hasattr(getattr(registered, NAMESPACE, None), NAME)


def _define(compiler: Compiler) -> None:
    """Tell TensorRT the output's shape and type, and how a kernel is made for given types."""
    import tensorrt as trt
    import tensorrt.plugin as trtp

    elements = {trt.float32: Element.FLOAT32, trt.float16: Element.FLOAT16, trt.bfloat16: Element.BFLOAT16}

    @trtp.register(PLUGIN)
    def describe(
        features: trtp.TensorDesc,
        grid: trtp.TensorDesc,
        boxes: trtp.TensorDesc,
        output_size: Int32Attribute,
        sampling_ratio: Int32Attribute,
        spatial_scale: Float32Attribute,
    ) -> trtp.TensorDesc:
        shape = (boxes.shape_expr[0], features.shape_expr[1], features.shape_expr[2])
        return trtp.from_shape_expr(shape, dtype=features.dtype)

    # No autotune function: types are the network's, layouts linear, and there is one kernel.
    @trtp.aot_impl(PLUGIN)
    def implement(
        features: trtp.TensorDesc,
        grid: trtp.TensorDesc,
        boxes: trtp.TensorDesc,
        output_size: Int32Attribute,
        sampling_ratio: Int32Attribute,
        spatial_scale: Float32Attribute,
        outputs: tuple[trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str, bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        variant = _variant(elements, features, output_size, sampling_ratio, spatial_scale)
        if (grid.dtype, boxes.dtype) != (trt.int64, trt.float32):
            raise GarBackendError(f"{PLUGIN} takes an int64 grid and float32 boxes, not {grid.dtype}, {boxes.dtype}")
        tiles, tokens, channels = features.shape_expr
        launch = trtp.KernelLaunchParams()
        launch.grid_x = boxes.shape_expr[0] * tokens
        launch.block_x = block_threads(channels.constant_value(), variant.element)
        extras = trtp.SymIntExprs.from_tuple((trtp.SymInt32(tiles), trtp.SymInt32(channels)))
        return ENTRY, compiler.ptx(variant, current_architecture()), launch, extras


def _variant(
    elements: Mapping[Any, Element], features: Any, output_size: Any, sampling_ratio: Any, spatial_scale: Any
) -> Variant:
    """The kernel for these features and attributes; `GarBackendError` where the C++ form refuses them, too."""
    side, samples, scale = int(output_size[0]), int(sampling_ratio[0]), float(spatial_scale[0])
    if side < 1 or samples != SAMPLES or not scale > 0:
        raise GarBackendError(
            f"{PLUGIN} needs output_size > 0, sampling_ratio {SAMPLES} and spatial_scale > 0, "
            f"not {side}, {samples} and {scale}"
        )
    if features.dtype not in elements:
        raise GarBackendError(f"{PLUGIN} takes fp32, fp16 or bf16 features, not {features.dtype}")
    _, *fixed = features.shape_expr
    if not (all(size.is_constant for size in fixed) and [size.constant_value() for size in fixed][:-1] == [side**2]):
        raise GarBackendError(f"{PLUGIN}: features must be [tiles, {side**2}, channels], only the tiles dynamic")
    return Variant(elements[features.dtype], side, scale)
