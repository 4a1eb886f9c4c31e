"""Export of adapters and models to the formats of other programs."""
