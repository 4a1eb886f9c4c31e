"""Models: sources of weights, checkpoint formats and loading."""
