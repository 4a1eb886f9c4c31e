import math


class EarlyStopping:
    """Says when the held-out loss has not improved for `patience` epochs."""

    def __init__(self, patience: int, min_delta: float) -> None:
        # `not >=` and not `<`: it is true of NaN as well.
        if patience < 1 or not min_delta >= 0:
            raise ValueError(f"patience {patience}, min_delta {min_delta}")
        self.patience, self.min_delta = patience, min_delta
        self.best_loss = math.inf
        self.best_epoch: int | None = None
        self.epoch = 0
        self.waited = 0

    def step(self, loss: float) -> bool:
        """Take the loss of one epoch; return whether to stop."""
        if self.waited >= self.patience:
            return True
        # False for NaN, whatever stands on the other side.
        if loss < self.best_loss - self.min_delta:
            self.best_loss, self.best_epoch, self.waited = loss, self.epoch, 0
        else:
            self.waited += 1
        self.epoch += 1
        return self.waited >= self.patience
