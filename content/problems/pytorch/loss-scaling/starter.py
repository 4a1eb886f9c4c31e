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
        raise NotImplementedError

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of the scaled loss to the parameters' own."""
        raise NotImplementedError

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale, once before each step."""
        raise NotImplementedError

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Let the optimiser take its step if all gradients are finite, and adjust the scale."""
        raise NotImplementedError
