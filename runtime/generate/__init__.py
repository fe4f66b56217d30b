"""From a question about regions to text."""
