"""Images: decoding of files that nobody vouches for, and their preparation for a model."""
