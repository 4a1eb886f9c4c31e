# expect: wrong answer: values
# Takes a difference of exactly min_delta, and with min_delta 0 an equal loss, for better.
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
        if loss <= self.best_loss - self.min_delta:
            self.best_loss, self.best_epoch, self.waited = loss, self.epoch, 0
        else:
            self.waited += 1
        self.epoch += 1
        return self.waited >= self.patience
