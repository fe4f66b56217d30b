"""Names that commands offer, in a module light enough for `--help`."""

from enum import Enum


class BackendName(str, Enum):
    """Back ends. AUTO: TensorRT where a GPU, the library and the bundle allow it, else ONNX Runtime."""

    AUTO = "auto"
    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt_rtx"
