"""Training data linter: finds problems that silently ruin runs."""
