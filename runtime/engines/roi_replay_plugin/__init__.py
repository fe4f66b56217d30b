"""The replay plugin that TensorRT engines carry within them, and the CUDA kernel behind it.

    register_replay_plugin()  # before the ONNX parser meets `roi_replay.onnx`, in the process that builds the engine

`gar-engine build --replay aot` does that.

The C++ form of the plugin, for TensorRT without ahead-of-time Python plugins, is in `export/plugin`.
"""

from gar_edge.runtime.engines.roi_replay_plugin.aot import is_registered, register_replay_plugin

__all__ = ["is_registered", "register_replay_plugin"]
