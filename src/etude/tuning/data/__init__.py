"""Data pipeline: sources, formats, encoding, packing."""
