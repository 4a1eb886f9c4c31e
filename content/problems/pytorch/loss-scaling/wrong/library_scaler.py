# expect: runtime error
# PyTorch's own, which is not to be used.
from torch.amp import GradScaler


class LossScaler:
    def __init__(self, scale=65536.0, growth=2.0, backoff=0.5, interval=2000):
        self.inner = GradScaler("cpu", scale, growth, backoff, interval)

    @property
    def scale(self):
        return float(self.inner.get_scale())

    def backward(self, loss):
        self.inner.scale(loss).backward()

    def unscale(self, optimizer):
        self.inner.unscale_(optimizer)

    def step(self, optimizer):
        before = self.scale
        self.inner.step(optimizer)
        self.inner.update()
        return self.scale >= before
