"""Data sources, one module per source or file type; `registry.py` finds them by name."""
