"""One schema an operation; the reference in plain PyTorch defines what is right."""
