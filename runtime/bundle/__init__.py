"""A bundle on disk: the manifest that describes it, and the folder that is checked when opened."""
