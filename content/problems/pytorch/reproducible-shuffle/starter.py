def epoch_order(count: int, seed: int, epoch: int, position: int = 0) -> list[int]:
    """Return the order of the samples in an epoch, from `position` on."""
    raise NotImplementedError
