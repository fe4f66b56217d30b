"""Regions of whole datasets, labelled by many workers: each row exactly once, whatever dies on the way."""
