"""The translation trace: what the translator did in a run, recorded and read like a book."""
