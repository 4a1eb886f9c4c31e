"""Memory estimation before a run."""
