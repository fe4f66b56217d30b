"""Pictures as arrays, and the tiles that the encoder takes."""
