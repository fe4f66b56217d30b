"""Reading and writing files: where they live, JSON from outside, ONNX bytes."""
