"""Evaluation metrics: names, formatting and computation."""
