"""The first example's picture, and a question about it that gar-nano answers with "pink"."""

PICTURE = "examples/scene_1.png"
MASK = {0: "examples/scene_1_mask_0.png"}
COLOUR = "What colour is <Prompt0>?"
