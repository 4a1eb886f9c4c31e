"""Adapter kinds, one per file."""
