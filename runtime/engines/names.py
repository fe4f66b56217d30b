"""Names that commands offer, in a module light enough for `--help`."""

from enum import Enum


class BackendName(str, Enum):
    """Back ends. AUTO: on a GPU TensorRT, TensorRT-RTX or CUDA, the first that can be had; else ONNXRUNTIME.

    CUDA is ONNX Runtime on the GPU, ONNXRUNTIME on the processor.
    """

    AUTO = "auto"
    ONNXRUNTIME = "onnxruntime"
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt_rtx"


class ReplayForm(str, Enum):
    """Forms of the replay in TensorRT's engines: the graph's own body, the C++ plugin, the ahead-of-time plugin."""

    PORTABLE = "portable"
    PLUGIN = "plugin"
    AOT = "aot"


class DecoderName(str, Enum):
    """Forms of the decoder. COMPAT: for engines that know no newer operator than opset 20's."""

    STANDARD = "standard"
    COMPAT = "compat"

    @classmethod
    def of(cls, compat: bool) -> "DecoderName":
        """The one that the option --compat means."""
        return cls.COMPAT if compat else cls.STANDARD
