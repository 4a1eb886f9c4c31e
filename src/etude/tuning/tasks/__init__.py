"""Tasks: what a model is tuned for. One file a task; `registry` finds them by name."""
