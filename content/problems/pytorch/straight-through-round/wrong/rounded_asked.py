# expect: wrong answer: values
# Asks the rounded number instead of x whether it is inside.
import torch


class RoundThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, low, high):
        rounded = torch.round(scale * x.clamp(low, high)) / scale
        ctx.save_for_backward(rounded)
        ctx.bounds = low, high
        return rounded

    @staticmethod
    def backward(ctx, gradient):
        (rounded,) = ctx.saved_tensors
        low, high = ctx.bounds
        return gradient * ((rounded >= low) & (rounded <= high)), None, None, None
