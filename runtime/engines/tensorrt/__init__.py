"""TensorRT and TensorRT-RTX: engines built from a bundle's graphs, kept beside them, and the back end that runs them.

onnx_file   a graph with its symbolic dimensions filled in
plan        which sizes an engine is built for
replay      forms of the replay: the portable body, the C++ plugin, the ahead-of-time plugin
installed   the TensorRT that is there: which one, how new, what it can do
builder     graph and plan to engine
store       engines on disk: keys, records, what fits this machine
engines     the engines of a bundle, built where they are missing
runtime_cache   kernels that TensorRT-RTX compiled while running, on disk
cuda, memory, session, backend    running them
"""
