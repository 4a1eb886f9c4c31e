"""The kinds of adapters, one a file."""
