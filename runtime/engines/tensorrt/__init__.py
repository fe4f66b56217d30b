"""TensorRT and TensorRT-RTX: engines built from a bundle's graphs, kept beside them, and the back end that runs them.

plan        which sizes an engine is built for
roi_replay  forms of the replay: the portable body, the C++ plugin, the ahead-of-time plugin
installed   the TensorRT that is there: which one, how new, what it can do
progress    how far a build is, and how it is stopped
allocator   its weights and scratch out of our memory
builder     graph and plan to engine
store       engines on disk: keys, records, what fits this machine
engines     the engines of a bundle, built where they are missing
opening     a bundle's back end: engines found or built, then loaded
runtime_cache   kernels that TensorRT-RTX compiled while running, on disk
session, backend    running them, over `engines/cuda`
"""
