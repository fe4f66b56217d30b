"""Frames, and where regions are in them."""
