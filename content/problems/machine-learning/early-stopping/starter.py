import math


class EarlyStopping:
    """Says when the held-out loss has not improved for `patience` epochs."""

    def __init__(self, patience: int, min_delta: float) -> None:
        self.best_loss = math.inf
        self.best_epoch: int | None = None

    def step(self, loss: float) -> bool:
        """Take the loss of one epoch; return whether to stop."""
        raise NotImplementedError
