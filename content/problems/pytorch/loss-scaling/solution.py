import torch


class LossScaler:
    """Multiplies losses, divides gradients, and skips steps that overflow."""

    def __init__(
        self,
        scale: float = 65536.0,
        growth: float = 2.0,
        backoff: float = 0.5,
        interval: int = 2000,
    ) -> None:
        self.scale, self.growth, self.backoff, self.interval = scale, growth, backoff, interval
        self.good_steps = 0
        # Whether all gradients are finite; None as long as they are scaled.
        self.finite: bool | None = None

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of the scaled loss to the parameters' own."""
        (loss * self.scale).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale, once before each step."""
        if self.finite is not None:
            raise RuntimeError("the gradients are unscaled already")
        gradients = [
            parameter.grad
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        for gradient in gradients:
            gradient.div_(self.scale)
        self.finite = all(bool(gradient.isfinite().all()) for gradient in gradients)

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Let the optimiser take its step if all gradients are finite, and adjust the scale."""
        if self.finite is None:
            self.unscale(optimizer)
        taken, self.finite = bool(self.finite), None
        if not taken:
            self.scale *= self.backoff
            self.good_steps = 0
            return taken
        optimizer.step()
        self.good_steps += 1
        if self.good_steps == self.interval:
            self.scale *= self.growth
            self.good_steps = 0
        return taken
