"""GAR in plain torch, its sizes, and the reader of released checkpoints."""
