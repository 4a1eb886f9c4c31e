# expect: wrong answer: values
# The test asks for "not worse", which holds for NaN.
import math


class EarlyStopping:
    def __init__(self, patience, min_delta):
        if patience < 1 or not min_delta >= 0:
            raise ValueError("patience")
        self.patience, self.min_delta = patience, min_delta
        self.best_loss, self.best_epoch = math.inf, None
        self.epoch = self.waited = 0

    def step(self, loss):
        if self.waited >= self.patience:
            return True
        if loss >= self.best_loss - self.min_delta:
            self.waited += 1
        else:
            self.best_loss, self.best_epoch, self.waited = loss, self.epoch, 0
        self.epoch += 1
        return self.waited >= self.patience
