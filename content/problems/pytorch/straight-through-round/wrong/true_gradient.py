# expect: wrong answer: values
# The staircase's own gradient: 0 everywhere.
import torch


class RoundThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, low, high):
        return torch.round(scale * x.clamp(low, high)) / scale

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient), None, None, None
