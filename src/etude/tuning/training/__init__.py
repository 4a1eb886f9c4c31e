"""The training loop: steps, schedule, checkpoints, evaluation."""
