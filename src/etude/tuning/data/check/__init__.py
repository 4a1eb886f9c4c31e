"""A linter for training data: what silently ruins runs, found before a model is trained."""
