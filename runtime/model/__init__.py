"""The bundle's graphs as functions: vision, decoder, and the sequences that the decoder goes through."""
