"""Describe a region of a picture: python examples/describe.py IMAGE MASK [BUNDLE]."""

import sys

from gar_edge.runtime import Gar, Options

image, mask, *bundle = sys.argv[1:]
gar = Gar.load(*bundle)  # without a folder: the bundle exported last
for piece in gar.open(image).stream(None, {1: mask}, options=Options(max_new_tokens=64)):
    print(piece, end="", flush=True)
print()
