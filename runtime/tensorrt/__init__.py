"""TensorRT and TensorRT-RTX: engines built from a bundle's graphs, kept beside them, and the back end that runs them.

onnx_file   a graph with its symbolic dimensions filled in
plan        which sizes an engine is built for
installed   the TensorRT that is there: which one, how new, what it can do
builder     graph and plan to engine
store       engines on disk: keys, records, what fits this machine
engines     the engines of a bundle, built where they are missing
cuda, memory, session, backend    running them
"""
