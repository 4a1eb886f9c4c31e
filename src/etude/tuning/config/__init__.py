"""Recipes: sections, reading and validation, reference."""
