"""Today: what to do next."""
