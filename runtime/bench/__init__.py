"""gar-bench: how fast a bundle answers on this machine, and how much of the machine that is."""
