"""ONNX Runtime on the processor, and its CUDA provider."""
