def learning_rate(step: int, peak: float, warmup: int, total: int, least: float = 0.0) -> float:
    """Return the learning rate of optimiser step `step`, counted from 0."""
    raise NotImplementedError
