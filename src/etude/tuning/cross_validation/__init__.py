"""Cross-validation: a run for each fold of the data, and what they have in common."""
