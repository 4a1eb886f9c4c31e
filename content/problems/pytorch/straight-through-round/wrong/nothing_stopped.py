# expect: wrong answer: values
# Numbers outside the bounds get a gradient too, and drift away for ever.
import torch


class RoundThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, low, high):
        return torch.round(scale * x.clamp(low, high)) / scale

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None, None, None
