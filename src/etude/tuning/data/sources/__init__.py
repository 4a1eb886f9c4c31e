"""Where data come from. One module a source or a kind of file; `registry.py` has them by name."""
