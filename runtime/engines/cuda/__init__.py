"""CUDA's runtime and memory, shared by every engine on a GPU."""
