"""Formats of data: from a row to a sample. One module a format; `registry.py` has them by name."""
