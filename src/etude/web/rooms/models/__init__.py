"""Models: what is on this machine."""
