"""Many questions in one run, each answered exactly once."""
