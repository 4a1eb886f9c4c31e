"""A recipe: its sections, how it is read, and its reference."""
