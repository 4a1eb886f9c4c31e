import torch


class RoundThrough(torch.autograd.Function):
    """Round to steps of 1 / scale between two bounds; the gradient passes straight through."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, scale: float, low: float, high: float) -> torch.Tensor:
        raise NotImplementedError

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        raise NotImplementedError
