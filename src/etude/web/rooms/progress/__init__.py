"""Progress: what was solved, what is known."""
