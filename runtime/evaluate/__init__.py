"""How well a bundle answers: the published benchmarks, your own regions, and one bundle against another."""
