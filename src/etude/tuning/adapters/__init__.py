"""Small trained updates of frozen weights: where they go, what they compute, their files."""
