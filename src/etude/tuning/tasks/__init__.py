"""Fine-tuning tasks, one per file; `registry` finds them by name."""
