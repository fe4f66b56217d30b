"""Export a GAR checkpoint to a bundle of ONNX graphs."""
