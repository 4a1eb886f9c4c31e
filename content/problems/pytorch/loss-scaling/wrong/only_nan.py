# expect: wrong answer: values
# Infinity is no NaN.
import torch


class LossScaler:
    def __init__(self, scale=65536.0, growth=2.0, backoff=0.5, interval=2000):
        self.scale, self.growth, self.backoff, self.interval = scale, growth, backoff, interval
        self.good, self.finite = 0, None

    def backward(self, loss):
        (loss * self.scale).backward()

    def grads(self, optimizer):
        return [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]

    def unscale(self, optimizer):
        if self.finite is not None:
            raise RuntimeError("twice")
        grads = self.grads(optimizer)
        for grad in grads:
            grad.div_(self.scale)
        self.finite = not any(bool(grad.isnan().any()) for grad in grads)

    def step(self, optimizer):
        if self.finite is None:
            self.unscale(optimizer)
        finite, self.finite = self.finite, None
        if not finite:
            self.scale *= self.backoff
            self.good = 0
            return False
        optimizer.step()
        self.good += 1
        if self.good == self.interval:
            self.scale *= self.growth
            self.good = 0
        return True
