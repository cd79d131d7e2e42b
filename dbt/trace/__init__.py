"""The translation trace: recording what the translator does in a run, and reading the recording."""
